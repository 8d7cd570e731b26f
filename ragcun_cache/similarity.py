"""How a query vector is compared with a passage vector. A head saves its own, and the index obeys it."""

from __future__ import annotations

from enum import StrEnum


class Similarity(StrEnum):
    """``cosine``: dot of unit vectors; ``dot``: as they are; ``l2``: minus the squared Euclidean distance."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"
