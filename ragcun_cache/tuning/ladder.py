"""The ladder: systems in the order in which they are tried, from the cheapest up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.config import AdapterConfig, Loss
from ragcun_cache.adapters.nudge import Nudge
from ragcun_cache.heads.config import AdapterMap, AdapterShape
from ragcun_cache.tuning.choice import Dev, Trial
from ragcun_cache.tuning.queries import Fold
from ragcun_cache.tuning.spec import (
    Adapter,
    Dense,
    Feedback,
    Fusion,
    Memory,
    Nudged,
    Procrustes,
    Raw,
    Ridge,
    SoftZca,
    Spec,
    TemperedPca,
    TrainedHead,
    WithinPair,
)

if TYPE_CHECKING:
    from ragcun_cache.heads.adapter import AdapterHead

WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
_FEEDBACKS = (Feedback(passages=1, weight=0.8), Feedback(passages=1, weight=0.6), Feedback(passages=3, weight=0.7))
_TEMPERATURES = (0.05, 0.07, 0.1)
_EVIDENCE = (10.0, 30.0, 100.0, 300.0, 1000.0)
_MEMORY_WEIGHTS = (0.3, 0.6, 1.0, 1.5)
_MEMORY_DENSE_WEIGHTS = (0.5, 0.6, 0.7, 0.8)
_ALPHAS = (0.5, 1.0)
_EPOCHS = (5, 10, 20)


def fusions(dense: Dense, feedback: Feedback | None = None) -> list[Spec]:
    """Return the dense system alone and fused with BM25 in every way that is tried."""
    shared = Spec(dense=dense, feedback=feedback)
    convex = [shared.model_copy(update={"bm25": Fusion.CONVEX, "dense_weight": weight}) for weight in WEIGHTS]
    return [shared, shared.model_copy(update={"bm25": Fusion.RECIPROCAL_RANK}), *convex]


class Ladder:
    """Tries systems on the dev queries of all folds until the deadline; what was tried is in ``trials``, raw first.

    ``folds`` are the parts of one collection that are dev in turn, or other collections (then nothing is learnt).
    ``deadline`` is a time of ``time.monotonic``: after it nothing begins but raw, no rung and no system of one.
    """

    def __init__(self, folds: Sequence[Fold], dev: Dev, deadline: float, *, seed: int, heads: Sequence[str]) -> None:
        self.folds = folds
        self.dev = dev
        self.deadline = deadline
        self.seed = seed
        self.heads = heads
        self.learns = all(fold.queries.train is not None for fold in folds)
        self.trials: list[Trial] = []
        self.left_out: list[str] = []
        self._adapters_of: dict[AdapterConfig, list[AdapterHead]] = {}

    def climb(self) -> Iterator[str]:
        """Try rung after rung; yields the name of each before it begins, or notes in ``left_out`` what does not."""
        rungs = [
            ("raw, BM25, and both", self._first),
            ("feedback", self._feedback),
            ("heads", self._heads),
            ("whitening", self._whitening),
        ]
        if self.learns:
            rungs += [
                ("closed forms", self._closed_forms),
                ("nudged passages", self._nudges),
                ("linear adapters", self._linear_adapters),
                ("query memory", self._memories),
                ("other adapters", self._other_adapters),
            ]
        for name, rung in rungs:
            if not self._is_late(name):
                yield name
                rung()

    def _is_late(self, what: str) -> bool:
        """Return whether there is no time for ``what``, and note it then. There always is for raw, which is first."""
        late = bool(self.trials) and time.monotonic() > self.deadline
        if late:
            self.left_out.append(what)
        return late

    def _first(self) -> None:
        self._try(Raw(), [*fusions(Raw()), Spec(bm25=Fusion.CONVEX, dense_weight=0.0)])

    def _feedback(self) -> None:
        for feedback in _FEEDBACKS:
            self._try(Raw(), fusions(Raw(), feedback))

    def _heads(self) -> None:
        for name in self.heads:
            self._try(TrainedHead(name=name), fusions(TrainedHead(name=name)))

    def _whitening(self) -> None:
        dim = self.folds[0].queries.query_qd.shape[1]
        for dense in (SoftZca(exponent=0.1), SoftZca(exponent=0.25), TemperedPca(rank=(dim + 1) // 2, temper=0.3)):
            self._try(dense, fusions(dense))

    def _closed_forms(self) -> None:
        for dense in (Ridge(strength=0.1), Ridge(strength=1.0), Procrustes(), WithinPair(shrinkage=3.0)):
            self._try(dense, fusions(dense))

    def _nudges(self) -> None:
        for variant, reach in product(Nudge, (0.05, 0.15, 0.4)):
            dense = Nudged(variant=variant, reach=reach)
            self._try(dense, fusions(dense))

    def _linear_adapters(self) -> None:
        for temperature in (0.02, 0.05):
            self._adapters(AdapterConfig(temperature=temperature, seed=self.seed))

    def _other_adapters(self) -> None:
        low_rank = AdapterShape(map=AdapterMap.LOW_RANK, rank=32)
        mlp = AdapterShape(map=AdapterMap.MLP)
        for config in (
            AdapterConfig(shape=low_rank, seed=self.seed),
            AdapterConfig(shape=mlp, learning_rate=1e-4, seed=self.seed),
            AdapterConfig(loss=Loss.PAIRWISE, seed=self.seed),
            AdapterConfig(loss=Loss.MARGIN, seed=self.seed),
        ):
            self._adapters(config)

    def _adapters(self, config: AdapterConfig) -> None:
        """Train once for each fold, and try what it was after some epochs, whole and half."""
        last = Adapter(config=config.model_copy(update={"epochs": _EPOCHS[-1]}))
        trained = []
        for fold in self.folds:
            if self._is_late(str(last)):
                return
            assert fold.queries.train is not None, "only a ladder that learns has adapters"
            trained.append(fold.queries.source.train(last, fold.queries.train, _EPOCHS))
        for epochs in _EPOCHS:
            stopped = config.model_copy(update={"epochs": epochs})
            self._adapters_of[stopped] = [one[epochs] for one in trained]
            for alpha in _ALPHAS:
                dense = Adapter(config=stopped, alpha=alpha)
                self._try(dense, fusions(dense))

    def _memories(self) -> None:
        """Add query memory to raw and to the best of each kind of vectors that learnt."""
        kinds: dict[str, Trial] = {}
        for trial in self.trials:
            kind = trial.spec.dense.kind
            if kind in ("raw", "nudge", "adapter") and trial.spec.bm25 == Fusion.CONVEX and not trial.spec.feedback:
                kinds[kind] = max(kinds.get(kind, trial), trial, key=lambda one: self.dev.mean(one.ndcg_q))
        for best in kinds.values():
            specs = [
                Spec(
                    dense=best.spec.dense,
                    bm25=Fusion.CONVEX,
                    dense_weight=dense_weight,
                    memory=Memory(temperature=temperature, evidence=evidence, weight=weight),
                )
                for dense_weight, temperature, evidence, weight in product(
                    _MEMORY_DENSE_WEIGHTS, _TEMPERATURES, _EVIDENCE, _MEMORY_WEIGHTS
                )
            ]
            self._try(best.spec.dense, specs)

    def _try(self, dense: Dense, specs: Sequence[Spec]) -> None:
        """Score ``specs``, which share the vectors of ``dense`` and the feedback, on the dev queries of every fold."""
        if self._is_late(specs[0].family if specs[0].memory else str(specs[0])):
            return
        temperatures = tuple(sorted({spec.memory.temperature for spec in specs if spec.memory}))
        by_spec: list[list[NDArray[np.float64]]] = [[] for _ in specs]
        for index, fold in enumerate(self.folds):
            queries = fold.queries
            adapter = self._adapters_of[dense.config][index] if isinstance(dense, Adapter) else None
            vectors = queries.source.vectors(dense, queries.train, trained=adapter)
            scored = queries.scored(vectors, specs[0], temperatures)
            for parts, spec in zip(by_spec, specs, strict=True):
                parts.append(fold.ndcg(scored, spec))
        for parts, spec in zip(by_spec, specs, strict=True):
            self.trials.append(Trial(spec, np.concatenate(parts)))
