"""How far a head has moved from the raw vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.diagnostics.blocks import row_blocks


def relative_residual(outputs_nd: NDArray[np.float32], inputs_nd: NDArray[np.floating]) -> float:
    """Return the mean over rows of ``||f(x) - x|| / ||x||``: how far a head has moved from the identity."""
    moved = []
    for outputs_bd, inputs_bd in row_blocks(outputs_nd, inputs_nd):
        moved_b = np.linalg.norm(outputs_bd - inputs_bd, axis=1).astype(np.float64)
        moved.append(moved_b / np.maximum(np.linalg.norm(inputs_bd, axis=1), np.finfo(np.float32).tiny))
    return float(np.concatenate(moved).mean())
