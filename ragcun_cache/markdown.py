"""Markdown as GitHub reads it: tables, paragraphs, and words that must not be taken for markup."""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, figures: bool = True) -> str:
    """Return a table whose first column is text and whose others are figures, set to the right, or text as well."""
    lines = [columns, ["---", *("---:" if figures else "---" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def paragraphs(*blocks: str) -> str:
    """Join texts and tables with a blank line between them."""
    return "\n\n".join(blocks)


def escape(words: str) -> str:
    """Return words, on one line, so that Markdown takes them as they are, also in the cell of a table."""
    return words.replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;").replace("\n", " ")
