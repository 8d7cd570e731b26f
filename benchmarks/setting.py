"""What every benchmark is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.home import Home


@dataclass(frozen=True)
class Setting:
    """Where a benchmark finds and leaves things.

    Attributes:
        home: where weights and collections are.
        scratch: an empty folder for the benchmark's own files, removed afterwards.
        rows: rows of the large cache; None for the full size.
    """

    home: Home
    scratch: Path
    rows: int | None = None
