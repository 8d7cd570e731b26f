"""Rows a part at a time: half a million of them are not to be copied whole for one figure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 16_384


def row_blocks(*tables: NDArray[np.floating]) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Yield the same rows of every table, which all have as many, as float32."""
    for start in range(0, len(tables[0]), BLOCK_ROWS):
        yield tuple(table[start : start + BLOCK_ROWS].astype(np.float32, copy=False) for table in tables)
