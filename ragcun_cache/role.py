"""The two roles a text can have. They are never mixed: each has its own cache."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Whether a text is searched with (query) or searched for (passage)."""

    QUERY = "query"
    PASSAGE = "passage"
