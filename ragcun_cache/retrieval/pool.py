"""Pools: the passages that any of several systems ranks high, scored by all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.retrieval.run import Run, rank_order

_ABSENT = -1
# 64 queries against half a million passages, as float32, are 128 MB a system.
BLOCK_QUERIES = 64
"""Queries that a pool scores at once."""


class Scorer(Protocol):
    """Scores every passage of a corpus for some of its queries."""

    @property
    def unfound(self) -> float | None:
        """Score of what the system does not find, as BM25 has it for no common word; None: it finds every passage."""

    def scores(self, queries: slice) -> NDArray[np.float32]:
        """Return (q, n) float32, the larger the better, for the queries at these positions."""


@dataclass(frozen=True)
class Pool:
    """Candidates of each query, with the score of every system for each.

    ``row_qc`` are passage rows (q, c) int64 in ascending order, padded with -1 behind; ``score_sqc`` are the scores
    (s, q, c) float32, 0 where padded. Unlike lists that each system made alone, no score is missing. ``unfound_s`` is
    the score that each system gives to what it does not find.
    """

    row_qc: NDArray[np.int64]
    score_sqc: NDArray[np.float32]
    unfound_s: tuple[float | None, ...]

    @classmethod
    def of(cls, scorers: Sequence[Scorer], n_queries: int, depth: int) -> Pool:
        """Pool the ``depth`` best passages of each system, a block of queries at a time.

        Where a system finds fewer, the rest are any that it does not find. They are kept: as the lowest scores of the
        dense vectors they give ``min_max`` a floor, without which NDCG@10 on the dev queries of NFCorpus is lower.
        """
        blocks = [
            _pool_block([one.scores(slice(start, min(start + BLOCK_QUERIES, n_queries))) for one in scorers], depth)
            for start in range(0, n_queries, BLOCK_QUERIES)
        ]
        width = max((row_bc.shape[1] for row_bc, _ in blocks), default=0)
        row_qc = np.full((n_queries, width), _ABSENT, dtype=np.int64)
        score_sqc = np.zeros((len(scorers), n_queries, width), dtype=np.float32)
        for block, (row_bc, score_sbc) in enumerate(blocks):
            rows = slice(block * BLOCK_QUERIES, block * BLOCK_QUERIES + len(row_bc))
            row_qc[rows, : row_bc.shape[1]] = row_bc
            score_sqc[:, rows, : row_bc.shape[1]] = score_sbc
        return cls(row_qc, score_sqc, tuple(one.unfound for one in scorers))

    def first(self, systems: int) -> Pool:
        """Return the pool with the scores of its first systems alone; the candidates stay."""
        return Pool(self.row_qc, self.score_sqc[:systems], self.unfound_s[:systems])

    @property
    def present_qc(self) -> NDArray[np.bool_]:
        """Which places hold a candidate, (q, c)."""
        present_qc: NDArray[np.bool_] = self.row_qc != _ABSENT
        return present_qc

    def best(self, score_qc: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the ``k`` best places of each query by ``score_qc``, (q, min(k, c)), best first."""
        masked_qc = np.where(self.present_qc, score_qc, -np.inf)
        if k < masked_qc.shape[1]:
            # Ties at the last place go to any of the equal ones; among those that are kept, to the first place.
            place_qk = np.sort(np.argpartition(-masked_qc, k - 1, axis=1)[:, :k], axis=1)
        else:
            place_qk = np.broadcast_to(np.arange(masked_qc.shape[1]), masked_qc.shape)
        order_qk = np.argsort(-np.take_along_axis(masked_qc, place_qk, axis=1), axis=1, kind="stable")
        return np.take_along_axis(place_qk, order_qk, axis=1)

    def run(self, score_qc: NDArray[np.float32], query_ids: Sequence[str], passage_ids: Sequence[str], k: int) -> Run:
        """Return the ``k`` best candidates of each query by ``score_qc`` (q, c), in trec_eval's order."""
        run: Run = {}
        for query_id, row_c, score_c in zip(query_ids, self.row_qc, score_qc, strict=True):
            scored = zip(score_c.tolist(), row_c.tolist(), strict=True)
            run[query_id] = rank_order(((score, passage_ids[row]) for score, row in scored if row != _ABSENT), k)
        return run


def _pool_block(
    score_bn_of: Sequence[NDArray[np.float32]], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    n_queries, n_passages = score_bn_of[0].shape
    if not n_passages:
        return np.empty((n_queries, 0), np.int64), np.empty((len(score_bn_of), n_queries, 0), np.float32)
    chosen_bn = np.zeros((n_queries, n_passages), dtype=np.bool_)
    for score_bn in score_bn_of:
        top_bk = np.argpartition(-score_bn, min(depth, n_passages) - 1, axis=1)[:, :depth]
        np.put_along_axis(chosen_bn, top_bk, True, axis=1)
    count_b = chosen_bn.sum(axis=1)
    row_bc = np.full((n_queries, int(count_b.max())), _ABSENT, dtype=np.int64)
    row_bc[np.arange(row_bc.shape[1]) < count_b[:, None]] = np.nonzero(chosen_bn)[1]
    present_bc = row_bc != _ABSENT
    score_sbc = np.stack([np.take_along_axis(score_bn, np.maximum(row_bc, 0), axis=1) for score_bn in score_bn_of])
    return row_bc, np.where(present_bc, score_sbc, 0.0).astype(np.float32)
