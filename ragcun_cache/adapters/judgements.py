"""Judgements as rows of the caches: what adapters, query memory and nudged passages are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair


@dataclass(frozen=True)
class Judgements:
    """Queries with their relevant passages. The passages of query i are at ``start_m1[i]:start_m1[i + 1]``.

    ``query_m`` (m,) and ``passage_j`` (j,) are rows of the query and of the passage cache, int64; ``grade_j`` (j,) are
    the grades, float32, all above 0; ``ideal_m`` (m,) is the ideal DCG@10 of each query, float64, which counts relevant
    passages that are not in the corpus.
    """

    query_m: NDArray[np.int64]
    start_m1: NDArray[np.int64]
    passage_j: NDArray[np.int64]
    grade_j: NDArray[np.float32]
    ideal_m: NDArray[np.float64]

    @classmethod
    def of(cls, qrels: Mapping[str, Mapping[str, int]], pair: CachePair) -> Judgements:
        """Take the queries of ``qrels`` that have a vector and a relevant passage, sorted by id."""
        query_row = {query_id: row for row, query_id in enumerate(pair.query.ids)}
        passage_row = {passage_id: row for row, passage_id in enumerate(pair.passage.ids)}
        queries: list[int] = []
        counts: list[int] = []
        found: list[tuple[int, int]] = []
        ideals: list[float] = []
        for query_id in sorted(qrels):
            relevant = {passage_id: grade for passage_id, grade in qrels[query_id].items() if grade > 0}
            if query_id not in query_row or not relevant:
                continue
            rows = sorted((passage_row[one], grade) for one, grade in relevant.items() if one in passage_row)
            queries.append(query_row[query_id])
            counts.append(len(rows))
            found += rows
            ideals.append(_ideal_dcg(list(relevant.values())))
        return cls(
            np.array(queries, np.int64),
            np.cumsum([0, *counts], dtype=np.int64),
            np.array([row for row, _ in found], np.int64),
            np.array([grade for _, grade in found], np.float32),
            np.array(ideals, np.float64),
        )

    def __len__(self) -> int:
        return len(self.query_m)

    @property
    def owner_j(self) -> NDArray[np.int64]:
        """The query that each judgement belongs to, (j,), as a position in ``query_m``."""
        return np.repeat(np.arange(len(self)), np.diff(self.start_m1))

    def take(self, positions: NDArray[np.integer]) -> Judgements:
        """Return the queries at ``positions``, in that order."""
        counts = np.diff(self.start_m1)[positions]
        start_m1 = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        judgement_j = np.arange(start_m1[-1]) + np.repeat(self.start_m1[positions] - start_m1[:-1], counts)
        return Judgements(
            self.query_m[positions],
            start_m1,
            self.passage_j[judgement_j],
            self.grade_j[judgement_j],
            self.ideal_m[positions],
        )

    def drawn(self, count: int, seed: int) -> Judgements:
        """Return ``count`` of the queries, or all if there are no more, in the order that they have here."""
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def joined(self, other: Judgements) -> Judgements:
        """Return the queries of both, these first."""
        return Judgements(
            np.concatenate([self.query_m, other.query_m]),
            np.concatenate([self.start_m1, self.start_m1[-1] + other.start_m1[1:]]),
            np.concatenate([self.passage_j, other.passage_j]),
            np.concatenate([self.grade_j, other.grade_j]),
            np.concatenate([self.ideal_m, other.ideal_m]),
        )

    @property
    def sha256(self) -> str:
        """Hash of all of it, in hexadecimal."""
        digest = hashlib.sha256()
        for part in (self.query_m, self.start_m1, self.passage_j, self.grade_j, self.ideal_m):
            digest.update(part.tobytes())
        return digest.hexdigest()

    def share_j(self, *, graded: bool = True) -> NDArray[np.float32]:
        """Return what part of its query's relevance each judgement has, (j,): they add up to 1 for each query."""
        weight_j = self.grade_j if graded else np.ones_like(self.grade_j)
        total_m = np.bincount(self.owner_j, weight_j, minlength=len(self))
        share_j: NDArray[np.float32] = (weight_j / total_m[self.owner_j]).astype(np.float32)
        return share_j

    def shuffled(self, seed: int) -> Judgements:
        """Return the same queries, each with another's passages: the null hypothesis of all that learns from them."""
        order = np.random.default_rng(seed).permutation(len(self))
        other_m = np.empty_like(order)
        # In a circle, or some query would keep its own.
        other_m[order] = np.roll(order, 1)
        others = self.take(other_m)
        return Judgements(self.query_m, others.start_m1, others.passage_j, others.grade_j, others.ideal_m)


def _ideal_dcg(grades: list[int]) -> float:
    best = np.array(sorted(grades, reverse=True)[:10], dtype=np.float64)
    return float((best / np.log2(np.arange(2, len(best) + 2))).sum())
