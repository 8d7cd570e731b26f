"""``docs/benchmarks.md``: one section a benchmark, replaced alone when that benchmark is run again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ragcun_cache.files import write_text

_HEAD = """\
# Benchmarks

Written by `python -m benchmarks` (`make bench`), section by section; do not edit. Each figure is a median with the
smallest and the largest value in brackets. What is compared was run in turns, after a round that does not count; a
ratio is the median over rounds of the ratio within a round.
"""
_SECTION = re.compile(r"^<!-- (?P<name>\w+) -->\n(?P<body>.*?)\n<!-- end of (?P=name) -->$", re.MULTILINE | re.DOTALL)


def read_sections(page: Path) -> dict[str, str]:
    """Return the body of every section of ``page`` by name, in the page's order; none if there is no page."""
    if not page.exists():
        return {}
    return {match["name"]: match["body"] for match in _SECTION.finditer(page.read_text(encoding="utf-8"))}


def write_sections(page: Path, new: Mapping[str, str]) -> None:
    """Replace the sections that ``new`` names where they stand, add those that are not there, keep all others."""
    sections = {**read_sections(page), **new}
    parts = [f"<!-- {name} -->\n{body.strip()}\n<!-- end of {name} -->\n" for name, body in sections.items()]
    write_text(page, "\n".join([_HEAD, *parts]))
