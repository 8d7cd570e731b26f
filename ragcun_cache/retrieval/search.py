"""Exact search, whose result depends on the vectors and the ids alone, in memory that does not grow with the corpus.

Float32 proposes, float64 decides. Scores of a block come from one float32 matrix product, which is fast and rounds
differently with the position of a row in its block. So they only serve to leave out what provably cannot be among the
best; what remains is scored again in float64, and rounded once to float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError
from ragcun_cache.retrieval.run import Run, drop_identical
from ragcun_cache.similarity import Similarity

BLOCK_ROWS = 16_384
"""Passages that are worth reading at a time: 50 MB at 768 dims in float32."""

# Queries compared with a block at a time: their scores take 64 MB.
_QUERY_ROWS = 1_024
# Rows in float64 at a time: so many stay in a core's cache.
_ROWS = 64
# Columns of which only the largest is looked at first; there are as many groups of them for each rank at least.
_GROUP = 8
_FLOAT32_UNIT = 2.0**-24
_SMALL = 1e-15


def search(
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    passage_ne: NDArray[np.floating],
    passage_ids: Sequence[str],
    similarity: Similarity,
    k: int,
    *,
    drop_identical_ids: bool,
    block_rows: int = BLOCK_ROWS,
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
        block_rows: passages compared at a time. Never changes the result.

    Scores are float32 (as Python floats), the correctly computed value of the given vectors rounded once. Each
    query's passages are in trec_eval's order: score descending, then id descending.

    Raises:
        EvaluationError: ids and rows differ in number, an id repeats, dims differ, ``k < 1``, or a vector is not
            finite (or so large that its squared norm is not).

    """
    if passage_ne.ndim != 2:
        raise EvaluationError("passage vectors are not a table", expected="(n, dim)", found=passage_ne.shape)
    blocks = (passage_ne[first : first + block_rows] for first in range(0, len(passage_ne), block_rows))
    return search_blocks(query_qe, query_ids, blocks, passage_ids, similarity, k, drop_identical_ids=drop_identical_ids)


def search_blocks(
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    blocks: Iterable[NDArray[np.floating]],
    passage_ids: Sequence[str],
    similarity: Similarity,
    k: int,
    *,
    drop_identical_ids: bool,
) -> Run:
    """Return what ``search`` returns, for passages that come block by block, each (b, e), and are read once.

    Raises:
        EvaluationError: as ``search``.

    """
    if k < 1:
        raise EvaluationError("the depth of a search must be at least 1", found=f"k={k}")
    _check_rows("query", len(query_qe) if query_qe.ndim == 2 else None, query_ids)
    queries = _Queries.of(query_qe, similarity)
    best = _Best(len(query_ids), k + 1 if drop_identical_ids else k, passage_ids)
    rows = 0
    for block_be in blocks:
        if len(block_be) and len(query_ids):
            _compare(queries, block_be, rows, best)
        rows += len(block_be)
    _check_rows("passage", rows, passage_ids)
    run = dict(zip(query_ids, best.ranked(), strict=True))
    return drop_identical(run, k)[0] if drop_identical_ids else run


def _check_rows(kind: str, rows: int | None, ids: Sequence[str]) -> None:
    if rows != len(ids):
        raise EvaluationError(
            f"{kind} vectors and {kind} ids do not match",
            expected=f"{len(ids)} vectors for {len(ids)} ids",
            found="no table" if rows is None else f"{rows} vectors",
        )
    if len(set(ids)) != len(ids):
        raise EvaluationError(f"{kind} ids repeat", expected="distinct ids", found=f"{len(ids)} rows")


def _squared_norms(kind: str, block_bd: NDArray[np.floating], first_row: int) -> NDArray[np.float64]:
    """Return |row|^2, (b,), computed for every row in the same way wherever it stands in the block."""
    squared_b = np.empty(len(block_bd))
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(block_bd), _ROWS):
            rows_rd = block_bd[first : first + _ROWS].astype(np.float64)
            np.vecdot(rows_rd, rows_rd, out=squared_b[first : first + _ROWS])
    bad = np.flatnonzero(~(squared_b <= np.finfo(np.float32).max))
    if len(bad):
        raise EvaluationError(
            f"{len(bad)} {kind} vectors are not finite, or too large for a float32 score",
            where=f"{kind} row {first_row + bad[0]}",
            expected="finite values",
            found=f"squared norm {squared_b[bad[0]]}",
        )
    return squared_b


def _or_one(norm_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return norms to divide by: a zero vector stays zero, so that it scores 0 with everything."""
    return np.where(norm_b == 0.0, 1.0, norm_b)


@dataclass(frozen=True)
class _Queries:
    """The queries in float64, of unit norm for cosine, and how passages are compared with them."""

    vectors_qe: NDArray[np.float64]
    similarity: Similarity

    @classmethod
    def of(cls, query_qe: NDArray[np.floating], similarity: Similarity) -> _Queries:
        vectors_qe = np.asarray(query_qe, dtype=np.float64)
        squared_q = _squared_norms("query", vectors_qe, 0)
        if similarity is Similarity.COSINE:
            vectors_qe = vectors_qe / _or_one(np.sqrt(squared_q))[:, None]
        return cls(vectors_qe, similarity)

    def scores(self, query: int, block: _Block, row_r: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the (r,) scores of rows of a block, in float64, rounded once to float32."""
        query_e, passage_re = self.vectors_qe[query], block.given_be[row_r]
        if self.similarity is Similarity.L2:
            # By differences: |q|^2 + |p|^2 - 2qp would cancel where the distance is small against the norms.
            difference_re = passage_re - query_e
            distance_r: NDArray[np.float64] = np.vecdot(difference_re, difference_re)
            return (-distance_r).astype(np.float32)
        # Row by row, so that equal rows have equal scores wherever they stand.
        score_r: NDArray[np.float64] = np.vecdot(passage_re, query_e)
        if self.similarity is Similarity.COSINE:
            score_r /= block.norm_b[row_r]
        return score_r.astype(np.float32)


@dataclass(frozen=True)
class _Block:
    """Passages as they are given, the norms to divide them by, and the same in float32 around ``centre_e``."""

    given_be: NDArray[np.floating]
    norm_b: NDArray[np.float64]
    moved_be: NDArray[np.float32]
    centre_e: NDArray[np.float32] | None
    similarity: Similarity

    @classmethod
    def of(cls, given_be: NDArray[np.floating], similarity: Similarity, first_row: int) -> _Block:
        norm_b = np.sqrt(_squared_norms("passage", given_be, first_row))
        moved_be = np.asarray(given_be, dtype=np.float32)
        if similarity is Similarity.L2:
            # A squared distance does not change when both sides move, and its rounding is smallest around the centre.
            centre_e = moved_be.mean(axis=0, dtype=np.float64).astype(np.float32)
            moved_be = moved_be - centre_e
            return cls(
                given_be, np.sqrt(_squared_norms("passage", moved_be, first_row)), moved_be, centre_e, similarity
            )
        if similarity is Similarity.COSINE:
            norm_b = _or_one(norm_b)
            if norm_b.min() < _SMALL:
                # So small that float32 products of it would underflow.
                moved_be = (given_be / norm_b[:, None]).astype(np.float32)
                return cls(given_be / norm_b[:, None], np.ones_like(norm_b), moved_be, None, similarity)
        return cls(given_be, norm_b, moved_be, None, similarity)

    def scores(self, query_qe: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return float32 scores (q, b), and a bound of |float32 score - exact score| for each query, (q,).

        A float32 dot product of d terms is off by at most d u |q||p| to first order, u = 2^-24 (Higham, Accuracy and
        Stability of Numerical Algorithms, 3.1). 32 more units cover the casts to float32, the division by a norm, and
        the sum of the three terms of a squared distance, whose terms are at most (|q| + |p|)^2 together.
        """
        if self.centre_e is not None:
            query_qe = query_qe - self.centre_e
        norm_q = np.linalg.norm(query_qe, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._scores(query_qe.astype(np.float32), norm_q)

    def _scores(
        self, query_qe: NDArray[np.float32], norm_q: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        score_qb: NDArray[np.float32] = query_qe @ self.moved_be.T
        if self.similarity is Similarity.COSINE:
            score_qb *= (1.0 / self.norm_b).astype(np.float32)
            size_q = norm_q
        elif self.similarity is Similarity.DOT:
            size_q = norm_q * self.norm_b.max()
        else:
            score_qb *= 2
            score_qb -= np.square(self.norm_b).astype(np.float32)
            score_qb -= np.square(norm_q).astype(np.float32)[:, None]
            size_q = np.square(norm_q + self.norm_b.max())
        return score_qb, (query_qe.shape[1] + 32) * (_FLOAT32_UNIT * size_q + np.finfo(np.float32).tiny)


def _compare(queries: _Queries, block_be: NDArray[np.floating], first_row: int, best: _Best) -> None:
    """Give ``best`` all rows of a block that can be among the best of a query, and their exact scores."""
    if block_be.ndim != 2 or block_be.shape[1] != queries.vectors_qe.shape[1]:
        raise EvaluationError(
            "query and passage vectors differ in dim",
            expected=f"(rows, {queries.vectors_qe.shape[1]})",
            found=block_be.shape,
        )
    block = _Block.of(block_be, queries.similarity, first_row)
    for first in range(0, len(queries.vectors_qe), _QUERY_ROWS):
        tile = slice(first, first + _QUERY_ROWS)
        score_qb, error_q = block.scores(queries.vectors_qe[tile])
        least_q = best.least_q[tile] - error_q
        if not np.isfinite(least_q).all():
            # The true k-th of this block is at most one error below the approximate one.
            least_q = np.maximum(least_q, _at_most_kth(score_qb, best.k) - 2 * error_q)
        # Not "at least": a product that overflows is no number, and must not be left out for that.
        place = np.flatnonzero(~(score_qb < least_q.astype(np.float32)[:, None]))
        query_p, row_p = np.divmod(place, len(block_be))
        bounds = np.searchsorted(query_p, np.arange(len(score_qb) + 1)).tolist()
        scores = [
            queries.scores(first + query, block, row_p[start:end])
            for query, (start, end) in enumerate(pairwise(bounds))
            if start < end
        ]
        if scores:
            best.add(query_p + first, row_p + first_row, np.concatenate(scores))


def _at_most_kth(score_qb: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return for each query, (q,), a score that at least ``k`` reach, and not many more; minus infinity if b < k.

    Of the largest of every group of columns, the k-th: ``k`` columns reach it, and as top scores seldom share a group
    it is nearly the k-th of all. That takes one pass, where to find the k-th itself takes several.
    """
    n_queries, columns = score_qb.shape
    if columns < k:
        return np.full(n_queries, -np.inf, dtype=np.float32)
    size = max(1, min(_GROUP, columns // (_GROUP * k)))
    groups = columns // size
    largest_qg = score_qb[:, : groups * size].reshape(n_queries, size, groups).max(axis=1)
    kth_q: NDArray[np.float32] = np.partition(largest_qg, -k, axis=1)[:, -k]
    return kth_q


def _descending(score_p: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return integers below 2^32 in the opposite order of the scores: one key sorts faster than two."""
    bits_p = (score_p + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    # IEEE 754: positive numbers grow with their bits, negative ones fall.
    negative = bits_p >> np.uint32(31) == 1
    return np.where(negative, bits_p, np.uint32(0x7FFFFFFF) - bits_p).astype(np.uint64)


class _Best:
    """The best passages of every query so far, those that tie with the k-th among them.

    ``least_q`` (q,) is the score below which nothing can be among the best any more.
    """

    def __init__(self, n_queries: int, k: int, passage_ids: Sequence[str]) -> None:
        self.k = k
        self.least_q = np.full(n_queries, -np.inf)
        self._ids = passage_ids
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._waiting = 0

    def add(self, query_p: NDArray[np.int64], row_p: NDArray[np.int64], score_p: NDArray[np.float32]) -> None:
        """Add pairs of a query and a passage that may be among its best."""
        self._parts.append((query_p, row_p, score_p))
        self._waiting += len(query_p)
        # To merge costs as much as it does to sort what there is: not for a handful of new ones.
        if self._waiting >= self.k * len(self.least_q) or not np.isfinite(self.least_q).all():
            self._merge()

    def _merge(self) -> None:
        query_p, row_p, score_p = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        order = np.argsort((query_p.astype(np.uint64) << np.uint64(32)) | _descending(score_p))
        query_p, row_p, score_p = query_p[order], row_p[order], score_p[order]
        start_q = np.searchsorted(query_p, np.arange(len(self.least_q) + 1))
        full_q = np.diff(start_q) >= self.k
        self.least_q[full_q] = score_p[start_q[:-1][full_q] + self.k - 1]
        kept = score_p >= self.least_q[query_p]
        if kept.sum() > 2 * self.k * len(self.least_q):
            kept &= self._wins_tie(query_p, row_p, score_p, kept)
        self._parts = [(query_p[kept], row_p[kept], score_p[kept])]
        self._waiting = 0

    def _wins_tie(
        self,
        query_p: NDArray[np.int64],
        row_p: NDArray[np.int64],
        score_p: NDArray[np.float32],
        kept: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Return, for pairs in order of query and score, which are among the k best of their query by score and id."""
        wins = np.zeros(len(query_p), dtype=np.bool_)
        bounds = np.searchsorted(query_p, np.arange(len(self.least_q) + 1))
        for query, (first, last) in enumerate(pairwise(bounds.tolist())):
            members = first + np.flatnonzero(kept[first:last])
            if len(members) <= self.k:
                wins[members] = True
                continue
            tied = score_p[members] == self.least_q[query]
            above = members[~tied]
            by_id = sorted(members[tied].tolist(), key=lambda place: self._ids[int(row_p[place])], reverse=True)
            wins[above] = True
            wins[by_id[: self.k - len(above)]] = True
        return wins

    def ranked(self) -> Iterator[dict[str, float]]:
        """Yield for every query passage id -> score: score descending, then id descending, at most k."""
        if not self._parts:
            yield from ({} for _ in self.least_q)
            return
        if self._waiting:
            self._merge()
        query_p, row_p, score_p = self._parts[0]
        bounds = np.searchsorted(query_p, np.arange(len(self.least_q) + 1))
        ids, scores = list(map(self._ids.__getitem__, row_p.tolist())), score_p.tolist()
        tied = set(query_p[:-1][(score_p[1:] == score_p[:-1]) & (query_p[1:] == query_p[:-1])].tolist())
        for query, (first, last) in enumerate(pairwise(bounds.tolist())):
            if query in tied:
                in_order = sorted(zip(scores[first:last], ids[first:last], strict=True), reverse=True)[: self.k]
                yield {passage_id: score for score, passage_id in in_order}
            else:
                yield dict(zip(ids[first:last], scores[first:last], strict=True))
