"""A set of queries against one corpus: scores of every system for a pool of candidates, and NDCG@10 on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.query_memory import QueryMemory
from ragcun_cache.retrieval.bm25 import Bm25Index
from ragcun_cache.retrieval.feedback import move_queries
from ragcun_cache.retrieval.fusion import convex, min_max, reciprocal_rank
from ragcun_cache.retrieval.pool import Pool
from ragcun_cache.tuning.spec import Fusion, Spec
from ragcun_cache.tuning.vectors import Source, Vectors

# Candidates that each system adds to the pool; recall@100 and map@100 need so many of the one that is chosen.
_DEPTH = 101
_DENSE, _BM25 = 0, 1


@dataclass(frozen=True)
class Scored:
    """A pool whose systems are dense vectors, BM25, and the density of query memory at each of ``temperatures``."""

    pool: Pool
    temperatures: tuple[float, ...] = ()
    _scaled: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)

    def fused(self, spec: Spec) -> NDArray[np.float32]:
        """Return the score of ``spec``, (q, c), given that the dense layer is that of ``spec.dense``."""
        if spec.bm25 == Fusion.RECIPROCAL_RANK:
            fused_qc = reciprocal_rank(self.pool.first(_BM25 + 1))
        elif spec.bm25 == Fusion.CONVEX:
            fused_qc = convex(self._min_max(_DENSE), self._min_max(_BM25), spec.dense_weight)
        else:
            fused_qc = self._min_max(_DENSE)
        if spec.memory is None:
            return fused_qc
        density_qc = self.pool.score_sqc[_BM25 + 1 + self.temperatures.index(spec.memory.temperature)]
        return fused_qc + np.float32(spec.memory.weight) * QueryMemory.score_of(density_qc, spec.memory.evidence)

    def _min_max(self, system: int) -> NDArray[np.float32]:
        if system not in self._scaled:
            self._scaled[system] = min_max(self.pool, system)
        return self._scaled[system]


@dataclass(frozen=True)
class _Layer:
    """Scores of BM25 or of query memory, (q, n), as a pool asks for them."""

    score_qn: NDArray[np.float32]
    unfound: float | None = 0.0

    def scores(self, queries: slice) -> NDArray[np.float32]:
        return self.score_qn[queries]


@dataclass(frozen=True)
class _DenseLayer:
    query_qd: NDArray[np.float32]
    passage_nd: NDArray[np.float32]
    unfound: float | None = None

    def scores(self, queries: slice) -> NDArray[np.float32]:
        return self.query_qd[queries] @ self.passage_nd.T


@dataclass(frozen=True)
class QuerySet:
    """Queries by their unit vectors (q, d) and texts, the corpus, and what query memory remembers (None: nothing)."""

    source: Source
    query_qd: NDArray[np.float32]
    texts: Sequence[str]
    bm25: Bm25Index
    train: Judgements | None

    @cached_property
    def _bm25_qn(self) -> NDArray[np.float32]:
        return self.bm25.scores(self.texts)

    @cached_property
    def _densities(self) -> dict[float, NDArray[np.float32]]:
        return {}

    def _density(self, temperature: float) -> NDArray[np.float32]:
        """Return the density of query memory, (q, n), kept for the next pool."""
        assert self.train is not None, "nothing to remember"
        if temperature not in self._densities:
            query_md = self.source.query_md[self.train.query_m]
            memory = QueryMemory(query_md, self.train, len(self.source.passage_nd), temperature, 1.0)
            density_qn = np.empty((len(self.query_qd), len(self.source.passage_nd)), dtype=np.float32)
            for start in range(0, len(density_qn), 64):
                density_qn[start : start + 64] = memory.density(self.query_qd[start : start + 64])
            self._densities[temperature] = density_qn
        return self._densities[temperature]

    def scored(self, vectors: Vectors, spec: Spec, temperatures: tuple[float, ...] = ()) -> Scored:
        """Return the pool of dense vectors, BM25 and query memory, after the feedback that ``spec`` asks for.

        ``vectors`` are those of ``spec.dense``. The pool serves every other spec of these vectors and this feedback.
        """
        return self._scored(vectors, spec, temperatures, with_bm25=True)

    def scored_alone(self, vectors: Vectors, spec: Spec) -> Scored:
        """Return the pool for ``spec`` and no other: dense vectors alone where the spec ranks by nothing else."""
        temperatures = (spec.memory.temperature,) if spec.memory else ()
        return self._scored(vectors, spec, temperatures, with_bm25=bool(spec.bm25 or spec.memory))

    def _scored(self, vectors: Vectors, spec: Spec, temperatures: tuple[float, ...], *, with_bm25: bool) -> Scored:
        query_qd = vectors.queries(self.query_qd)
        if spec.feedback is not None:
            without = Spec(dense=spec.dense, bm25=Fusion.CONVEX, dense_weight=spec.feedback.dense_weight)
            before = self.scored(vectors, without)
            place_qk = before.pool.best(before.fused(without), spec.feedback.passages)
            found_qk = np.take_along_axis(before.pool.row_qc, place_qk, axis=1)
            query_qd = move_queries(query_qd, vectors.passage_nd, found_qk, spec.feedback.weight)
        layers: list[_Layer | _DenseLayer] = [_DenseLayer(query_qd, vectors.passage_nd)]
        layers += [_Layer(self._bm25_qn)] if with_bm25 else []
        layers += [_Layer(self._density(temperature)) for temperature in temperatures]
        return Scored(Pool.of(layers, len(query_qd), _DEPTH), temperatures)


@dataclass(frozen=True)
class Fold:
    """Judged queries that nothing was learnt from, and what may be learnt from (``queries.train``).

    ``own_q`` is the row of the passage that has the query's own id, -1 where there is none: it is dropped.
    """

    queries: QuerySet
    dev: Judgements
    own_q: NDArray[np.int64]

    @cached_property
    def _grade_of(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Judgements as sorted keys, query times n plus passage, and their grades."""
        key_j = self.dev.owner_j * len(self.queries.source.passage_nd) + self.dev.passage_j
        order_j = np.argsort(key_j)
        return key_j[order_j], self.dev.grade_j[order_j]

    @cached_property
    def unseen(self) -> NDArray[np.bool_]:
        """Which queries have no relevant passage that was relevant in training, (q,)."""
        train = self.queries.train
        seen_j = np.isin(self.dev.passage_j, train.passage_j if train else np.empty(0, np.int64))
        count_q = np.bincount(self.dev.owner_j, seen_j, minlength=len(self.dev))
        unseen_q: NDArray[np.bool_] = count_q == 0
        return unseen_q

    def ndcg(self, scored: Scored, spec: Spec) -> NDArray[np.float64]:
        """Return NDCG@10 of each query, (q,), as trec_eval has it but for the order of equal scores."""
        score_qc = np.where(scored.pool.row_qc == self.own_q[:, None], -np.inf, scored.fused(spec))
        place_qk = scored.pool.best(score_qc, 10)
        row_qk = np.take_along_axis(scored.pool.row_qc, place_qk, axis=1)
        key_j, grade_j = self._grade_of
        if not len(key_j):
            return np.zeros(len(self.dev))
        key_qk = np.arange(len(row_qk))[:, None] * len(self.queries.source.passage_nd) + row_qk
        at_qk = np.minimum(np.searchsorted(key_j, key_qk), len(key_j) - 1)
        found_qk = (key_j[at_qk] == key_qk) & (row_qk >= 0) & (row_qk != self.own_q[:, None])
        gain_qk = np.where(found_qk, grade_j[at_qk], 0.0)
        dcg_q: NDArray[np.float64] = (gain_qk / np.log2(np.arange(2, gain_qk.shape[1] + 2))).sum(axis=1)
        return dcg_q / self.dev.ideal_m
