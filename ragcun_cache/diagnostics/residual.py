"""How far a head has moved from the raw vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def relative_residual(outputs_nd: NDArray[np.float32], inputs_nd: NDArray[np.float32]) -> float:
    """Return the mean over rows of ``||f(x) - x|| / ||x||``: how far a head has moved from the identity."""
    moved_n = np.linalg.norm(outputs_nd - inputs_nd, axis=1).astype(np.float64)
    return float(np.mean(moved_n / np.maximum(np.linalg.norm(inputs_nd, axis=1), np.finfo(np.float32).tiny)))
