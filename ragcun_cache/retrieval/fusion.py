"""Fusion: one score from the scores that several systems give to the candidates of a pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.retrieval.pool import Pool


def min_max(pool: Pool, system: int) -> NDArray[np.float32]:
    """Return the scores of one system, (q, c), moved and scaled to [0, 1] for each query.

    The best candidate of the query gets 1, the worst 0; all get 0 where all are equal. Source: Bruch, Gai and Ingber,
    arXiv 2210.11934, section 3.
    """
    score_qc = pool.score_sqc[system]
    present_qc = pool.present_qc
    highest_q = np.where(present_qc, score_qc, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    lowest_q = np.where(present_qc, score_qc, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    spread_q = highest_q - lowest_q
    usable_q = np.isfinite(spread_q) & (spread_q > 0)
    scaled_qc = (score_qc - np.where(usable_q, lowest_q, 0)) / np.where(usable_q, spread_q, 1)
    return np.where(present_qc & usable_q, scaled_qc, 0).astype(np.float32)


def convex(first_qc: NDArray[np.float32], second_qc: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Return ``weight * first + (1 - weight) * second``, (q, c), of scores on one scale (arXiv 2210.11934, eq. 1)."""
    fused_qc: NDArray[np.float32] = np.float32(weight) * first_qc + np.float32(1 - weight) * second_qc
    return fused_qc


def reciprocal_rank(pool: Pool, *, constant: int = 60) -> NDArray[np.float32]:
    """Return the sum over systems of ``1 / (constant + rank)``, (q, c), ranks from 1.

    A system adds nothing to a passage that it does not find. Equal scores of a system get the ranks of their places in
    the pool. Source: Cormack, Clarke and Buettcher, SIGIR 2009, whose constant is 60.
    """
    fused_qc = np.zeros(pool.row_qc.shape, dtype=np.float32)
    for score_qc, unfound in zip(pool.score_sqc, pool.unfound_s, strict=True):
        order_qc = pool.best(score_qc, score_qc.shape[1])
        rank_qc = np.empty_like(order_qc)
        np.put_along_axis(rank_qc, order_qc, np.arange(1, order_qc.shape[1] + 1)[None, :], axis=1)
        credit_qc = (1.0 / (constant + rank_qc)).astype(np.float32)
        fused_qc += credit_qc if unfound is None else np.where(score_qc > unfound, credit_qc, np.float32(0))
    return fused_qc
