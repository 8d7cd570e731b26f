"""Which ids a stream has had before, in 8 bytes an id (a dict of 8.8 million MS MARCO ids would need over 1 GB)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SeenIds:
    """A set of 64-bit hashes, kept as sorted arrays of doubling size.

    A hash that was seen before is a *candidate*: two ids can share one (for n ids the chance is about n²/2⁶⁵), so
    whoever asks confirms a candidate by the ids themselves.
    """

    def __init__(self) -> None:
        self._levels: list[NDArray[np.int64]] = []

    def add(self, ids: list[str]) -> list[int]:
        """Add a batch; return the positions in it whose id may have come before, in this batch or an earlier one."""
        hashes = np.fromiter((hash(one) for one in ids), dtype=np.int64, count=len(ids))
        unique, first = np.unique(hashes, return_index=True)
        again = np.ones(len(ids), dtype=bool)
        again[first] = False
        for level in self._levels:
            place = np.minimum(np.searchsorted(level, hashes), len(level) - 1)
            again |= level[place] == hashes
        while self._levels and len(self._levels[-1]) <= len(unique):
            unique = np.union1d(self._levels.pop(), unique)
        if len(unique):
            self._levels.append(unique)
        return [int(position) for position in np.flatnonzero(again)]
