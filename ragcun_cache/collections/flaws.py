"""Flaws of a collection that do not stop the work: counted, and shown with the file and line of the first."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flaw:
    """One kind of flaw in one file: how often it was met, and the line (from 1) where it was met first."""

    kind: str
    file: Path
    first_line: int
    count: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.count:,} (first at {self.file}:{self.first_line})"


@dataclass
class Flaws:
    """Collects flaws while files are read."""

    _found: dict[tuple[str, Path], Flaw] = field(default_factory=dict)

    def note(self, kind: str, file: Path, line: int) -> None:
        """Count one more flaw of this kind in this file."""
        known = self._found.get((kind, file))
        first_line = known.first_line if known else line
        self._found[kind, file] = Flaw(kind, file, first_line, known.count + 1 if known else 1)

    def all(self) -> list[Flaw]:
        """Every flaw noted so far, in the order in which each kind was first met."""
        return list(self._found.values())

    def log(self) -> None:
        """Say each flaw once, as a warning of the standard ``logging``."""
        for flaw in self.all():
            _log.warning("%s", flaw)
