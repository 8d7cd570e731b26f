"""Pseudo-relevance feedback on vectors: a query moves toward the passages that it finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def move_queries(
    query_qd: NDArray[np.float32], passage_nd: NDArray[np.float32], found_qk: NDArray[np.int64], weight: float
) -> NDArray[np.float32]:
    """Return unit rows along ``weight * query + (1 - weight) * mean of the k passages found``, (q, d).

    ``query_qd`` and ``passage_nd`` are unit rows, ``found_qk`` the rows of the passages that each query found, by
    whatever system. Source: Rocchio's formula without negatives, as in Li et al., arXiv 2108.11044, section 3.2.
    """
    moved_qd = weight * query_qd + (1 - weight) * passage_nd[found_qk].mean(axis=1)
    norm_q = np.linalg.norm(moved_qd, axis=1, keepdims=True)
    unit_qd: NDArray[np.float32] = (moved_qd / np.where(norm_q > 0, norm_q, 1)).astype(np.float32)
    return unit_qd
