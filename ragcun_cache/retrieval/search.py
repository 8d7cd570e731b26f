"""Exact search with FAISS, whose result depends on the vectors and the ids alone.

FAISS proposes, float64 decides: float32 matrix products round differently with the position of a row in a block, so
FAISS's scores are only used to find candidates. The candidates are scored again in float64 and rounded to float32,
and a query whose last candidate is not provably worse than its k-th is scanned whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError
from ragcun_cache.retrieval.run import Run, drop_identical, rank_order
from ragcun_cache.similarity import Similarity

# 0.3 GB at 768 dims, counting the float64 copies.
_BLOCK_ROWS = 16_384
# Candidates beyond k. On real collections the scores of this many ranks differ by more than FAISS's rounding, so
# that nearly no query needs a scan.
_SPARE = 32
_FLOAT32_UNIT = 2.0**-24


def search(
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    passage_ne: NDArray[np.floating],
    passage_ids: Sequence[str],
    similarity: Similarity,
    k: int,
    *,
    drop_identical_ids: bool,
    block_rows: int = _BLOCK_ROWS,
) -> Run:
    """Return the ``k`` best passages of each query, fewer only where there are fewer.

    Args:
        query_qe: (q, e) float16 or float32 vectors, row ``i`` belonging to ``query_ids[i]``.
        query_ids: q distinct ids.
        passage_ne: (n, e) float16 or float32 vectors; may be memory-mapped, it is read in blocks.
        passage_ids: n distinct ids.
        similarity: ``cosine`` (0 where a vector is zero), ``dot``, or ``l2`` (minus the squared Euclidean distance).
        k: depth of the run, at least 1.
        drop_identical_ids: leave out passages with their query's own id (BEIR's rule); ``k`` others are returned.
        block_rows: passages converted at a time. Never changes the result.

    Scores are float32 (as Python floats), the correctly computed value of the given vectors rounded once. Each
    query's passages are in trec_eval's order: score descending, then id descending.

    Raises:
        EvaluationError: ids and rows differ in number, an id repeats, dims differ, ``k < 1``, or a vector is not
            finite (or so large that its squared norm is not).

    """
    _check_shapes(query_qe, query_ids, passage_ne, passage_ids, k)
    depth = k + 1 if drop_identical_ids else k
    run: Run = {query_id: {} for query_id in query_ids}
    if len(query_ids) and len(passage_ids):
        queries = _Queries.of(query_qe, similarity)
        run = dict(zip(query_ids, _top(queries, passage_ne, passage_ids, depth, block_rows), strict=True))
    return drop_identical(run, k)[0] if drop_identical_ids else run


def _check_shapes(
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    passage_ne: NDArray[np.floating],
    passage_ids: Sequence[str],
    k: int,
) -> None:
    if k < 1:
        raise EvaluationError("the depth of a search must be at least 1", found=f"k={k}")
    for kind, array, ids in (("query", query_qe, query_ids), ("passage", passage_ne, passage_ids)):
        if array.ndim != 2 or array.shape[0] != len(ids):
            raise EvaluationError(
                f"{kind} vectors and {kind} ids do not match",
                expected=f"({len(ids)}, dim) vectors for {len(ids)} ids",
                found=f"shape {array.shape}",
            )
        if len(set(ids)) != len(ids):
            raise EvaluationError(f"{kind} ids repeat", expected="distinct ids", found=f"{len(ids)} rows")
    if query_qe.shape[1] != passage_ne.shape[1]:
        raise EvaluationError(
            "query and passage vectors differ in dim", expected=query_qe.shape[1], found=passage_ne.shape[1]
        )


def _squared_norms(kind: str, block_bd: NDArray[np.float64], first_row: int) -> NDArray[np.float64]:
    squared_b: NDArray[np.float64] = np.einsum("bd,bd->b", block_bd, block_bd)
    bad = np.flatnonzero(~(squared_b <= np.finfo(np.float32).max))
    if len(bad):
        raise EvaluationError(
            f"{len(bad)} {kind} vectors are not finite, or too large for a float32 score",
            where=f"{kind} row {first_row + bad[0]}",
            expected="finite values",
            found=f"squared norm {squared_b[bad[0]]}",
        )
    return squared_b


def _unit(block_bd: NDArray[np.float64], squared_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by the norm; a zero vector stays zero, so that it scores 0 with everything."""
    norm_b = np.sqrt(squared_b)
    norm_b[norm_b == 0.0] = 1.0
    unit_bd: NDArray[np.float64] = block_bd / norm_b[:, None]
    return unit_bd


@dataclass(frozen=True)
class _Queries:
    """The queries in float64 (unit for cosine), and how passages are to be compared with them."""

    vectors_qe: NDArray[np.float64]
    similarity: Similarity

    @classmethod
    def of(cls, query_qe: NDArray[np.floating], similarity: Similarity) -> _Queries:
        vectors_qe = np.asarray(query_qe, dtype=np.float64)
        squared_q = _squared_norms("query", vectors_qe, 0)
        return cls(_unit(vectors_qe, squared_q) if similarity is Similarity.COSINE else vectors_qe, similarity)

    def prepare(self, passage_be: NDArray[np.floating], first_row: int) -> NDArray[np.float64]:
        """Return passages in float64, unit for cosine. Raises EvaluationError if one is not finite."""
        block_be = np.asarray(passage_be, dtype=np.float64)
        squared_b = _squared_norms("passage", block_be, first_row)
        return _unit(block_be, squared_b) if self.similarity is Similarity.COSINE else block_be

    def scores(self, row: int, prepared_be: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the (b,) scores of query ``row``, computed in float64 and rounded to float32."""
        query_e = self.vectors_qe[row]
        if self.similarity is Similarity.L2:
            # By differences: |q|^2 + |p|^2 - 2qp would cancel where the distance is small against the norms.
            difference_be = prepared_be - query_e
            score_b: NDArray[np.float64] = -np.einsum("be,be->b", difference_be, difference_be)
        else:
            score_b = np.einsum("be,e->b", prepared_be, query_e)
        return score_b.astype(np.float32)


@dataclass(frozen=True)
class _Candidates:
    """What FAISS proposes: (q, c) passage rows and scores, best first, and (q,) how far its scores can be off."""

    row_qc: NDArray[np.int64]
    score_qc: NDArray[np.float32]
    error_q: NDArray[np.float64]


def _blocks(passage_ne: NDArray[np.floating], rows: int) -> Iterator[tuple[int, NDArray[np.floating]]]:
    for first in range(0, len(passage_ne), rows):
        yield first, passage_ne[first : first + rows]


def _propose(queries: _Queries, passage_ne: NDArray[np.floating], n_candidates: int, block_rows: int) -> _Candidates:
    """Search block by block with FAISS and merge; every row that is left out scores at most the last one kept."""
    import faiss

    is_l2 = queries.similarity is Similarity.L2
    # A squared distance does not change when both sides move, and its rounding is smallest around the centre.
    centre_e = np.asarray(passage_ne[:block_rows], dtype=np.float64).mean(axis=0) if is_l2 else 0.0
    query_qe = (queries.vectors_qe - centre_e).astype(np.float32)
    n_queries, dim = query_qe.shape
    row_qc = np.empty((n_queries, 0), dtype=np.int64)
    score_qc = np.empty((n_queries, 0), dtype=np.float32)
    largest_squared_norm = 0.0
    index = faiss.IndexFlatL2(dim) if is_l2 else faiss.IndexFlatIP(dim)
    for first, passage_be in _blocks(passage_ne, block_rows):
        block_be = (queries.prepare(passage_be, first) - centre_e).astype(np.float32)
        largest_squared_norm = max(largest_squared_norm, float(np.einsum("be,be->b", block_be, block_be).max()))
        index.reset()
        index.add(block_be)
        # Asking for no more than there are: FAISS would fill the rest with -1.
        found_qc, position_qc = index.search(query_qe, min(n_candidates, len(block_be)))
        row_qc = np.concatenate([row_qc, position_qc + first], axis=1)
        score_qc = np.concatenate([score_qc, -found_qc if is_l2 else found_qc], axis=1)
        best_qc = np.argsort(-score_qc, axis=1, kind="stable")[:, :n_candidates]
        row_qc = np.take_along_axis(row_qc, best_qc, axis=1)
        score_qc = np.take_along_axis(score_qc, best_qc, axis=1)
    if (row_qc < 0).any():
        raise EvaluationError("FAISS returned no passage for a query", found="-1 among the rows")
    return _Candidates(row_qc, score_qc, _rounding_bound(query_qe, largest_squared_norm, is_l2))


def _rounding_bound(query_qe: NDArray[np.float32], largest_squared_norm: float, is_l2: bool) -> NDArray[np.float64]:
    """Bound |float32 score - exact score| for each query, (q,).

    A float32 dot product of d terms is off by at most d u |q||p| to first order, u = 2^-24 (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1). 16 more units cover the casts to float32 and the sum of the three terms
    of a squared distance, whose terms are at most (|q| + |p|)^2 together.
    """
    norm_q = np.sqrt(np.einsum("qe,qe->q", query_qe, query_qe, dtype=np.float64))
    norm_p = np.sqrt(largest_squared_norm)
    size_q = (norm_q + norm_p) ** 2 if is_l2 else norm_q * norm_p
    bound_q: NDArray[np.float64] = (query_qe.shape[1] + 16) * _FLOAT32_UNIT * size_q + np.finfo(np.float32).tiny
    return bound_q


def _top(
    queries: _Queries, passage_ne: NDArray[np.floating], passage_ids: Sequence[str], k: int, block_rows: int
) -> list[dict[str, float]]:
    candidates = _propose(queries, passage_ne, k + _SPARE, block_rows)
    top: list[dict[str, float]] = []
    unsettled: list[int] = []
    for i, row_c in enumerate(candidates.row_qc):
        score_c = queries.scores(i, queries.prepare(passage_ne[row_c], 0))
        top.append(rank_order(zip(score_c.tolist(), (passage_ids[row] for row in row_c), strict=True), k))
        all_seen = len(row_c) == len(passage_ids)
        if not all_seen and min(top[i].values()) <= candidates.score_qc[i, -1] + candidates.error_q[i]:
            unsettled.append(i)
    for i, ranked in zip(unsettled, _scan(queries, unsettled, passage_ne, passage_ids, k, block_rows), strict=True):
        top[i] = ranked
    return top


def _scan(
    queries: _Queries,
    rows: Sequence[int],
    passage_ne: NDArray[np.floating],
    passage_ids: Sequence[str],
    k: int,
    block_rows: int,
) -> list[dict[str, float]]:
    """Score every passage for the queries in ``rows``: for ties at the k-th place that reach past the candidates."""
    if not rows:
        return []
    best: list[list[tuple[float, str]]] = [[] for _ in rows]
    for first, passage_be in _blocks(passage_ne, block_rows):
        prepared_be = queries.prepare(passage_be, first)
        for i, row in enumerate(rows):
            score_b = queries.scores(row, prepared_be)
            kth = np.partition(score_b, -k)[-k] if len(score_b) > k else score_b.min()
            scored = ((float(score_b[j]), passage_ids[first + j]) for j in np.flatnonzero(score_b >= kth).tolist())
            best[i] = heapq.nlargest(k, [*best[i], *scored])
    return [rank_order(scored, k) for scored in best]
