"""The one rule that turns a record into the string that is encoded."""

from __future__ import annotations

TEMPLATE = '(title + " " + text).strip()'


def compose_text(title: str, text: str) -> str:
    """Join as BEIR does; a blank title adds nothing.

    >>> compose_text("", " a passage ")
    'a passage'
    """
    return f"{title} {text}".strip()
