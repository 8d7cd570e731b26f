"""From a spec's dense part to vectors: what queries and passages become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters import closed_form
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.nudge import nudge_passages
from ragcun_cache.heads.config import Side
from ragcun_cache.role import Role
from ragcun_cache.tuning.spec import (
    Adapter,
    Dense,
    Nudged,
    Procrustes,
    Raw,
    Ridge,
    SoftZca,
    TemperedPca,
    TrainedHead,
    WithinPair,
)

if TYPE_CHECKING:
    from ragcun_cache.heads.adapter import AdapterHead
    from ragcun_cache.heads.head import Head

Encode = Callable[[NDArray[np.float32], Role], NDArray[np.float32]]
"""A trained head on unit rows (n, d) of a role."""


@dataclass(frozen=True)
class Vectors:
    """What a dense system compares: ``passage_nd``, unit rows, and a map of unit query rows to unit query rows.

    ``head`` is what makes them, None where nothing does or where each passage moved by itself. ``moved_passages`` says
    whether passages differ from the cached ones, so that an index of those is of no use.
    """

    passage_nd: NDArray[np.float32]
    head: Head | None = None
    moved_passages: bool = False

    def queries(self, query_qd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the query vectors that are searched with, unit rows (q, d)."""
        return query_qd if self.head is None else _encode(self.head, query_qd, Role.QUERY)


@dataclass(frozen=True)
class Source:
    """Cached vectors of a collection, float32 unit rows, and heads by name that may be applied to them."""

    query_md: NDArray[np.float32]
    passage_nd: NDArray[np.float32]
    heads: Mapping[str, Head]

    def vectors(self, dense: Dense, train: Judgements | None, *, trained: AdapterHead | None = None) -> Vectors:
        """Return the vectors of a dense system that has learnt from ``train`` (None: no judgement at all).

        ``trained`` is the adapter of that spec where it was trained already.

        Raises:
            TrainingError: an adapter cannot be trained.

        """
        if isinstance(dense, Raw):
            return Vectors(self.passage_nd)
        if isinstance(dense, TrainedHead):
            return self._through(self.heads[dense.name], moved=True)
        if isinstance(dense, SoftZca):
            head = closed_form.linear_head(closed_form.soft_zca(self.passage_nd, dense.exponent), Side.BOTH)
            return self._through(head, moved=True)
        if isinstance(dense, TemperedPca):
            weight_dd = closed_form.tempered_pca(self.passage_nd, dense.rank, dense.temper)
            return self._through(closed_form.linear_head(weight_dd, Side.BOTH), moved=True)
        assert train is not None, "the zero-shot route has no such system"
        if isinstance(dense, Nudged):
            query_md = self.query_md[train.query_m]
            moved_nd = nudge_passages(self.passage_nd, query_md, train, dense.reach, dense.variant)
            return Vectors(moved_nd, moved_passages=True)
        if isinstance(dense, Adapter):
            adapter = trained or self.train(dense, train, ())[dense.config.epochs]
            head = adapter.mixed(dense.alpha)
            return self._through(head, moved=dense.config.shape.side == Side.BOTH)
        return self._through(closed_form.linear_head(self._fit(dense, train), Side.QUERY), moved=False)

    def train(self, dense: Adapter, train: Judgements, keep: tuple[int, ...]) -> dict[int, AdapterHead]:
        """Train the adapter of a spec; return it after its last epoch and those in ``keep``."""
        import torch

        from ragcun_cache.adapters.train import train_adapter

        query_md = torch.from_numpy(self.query_md[train.query_m])
        return train_adapter(dense.config, train, query_md, torch.from_numpy(self.passage_nd), keep=keep)

    def _fit(self, dense: Ridge | Procrustes | WithinPair, train: Judgements) -> NDArray[np.float32]:
        moments = closed_form.PairMoments.of(self.query_md[train.query_m], self.passage_nd, train)
        if isinstance(dense, Ridge):
            return closed_form.ridge_to_identity(moments, dense.strength)
        if isinstance(dense, WithinPair):
            return closed_form.within_pair(moments, dense.shrinkage)
        return closed_form.procrustes(moments)

    def _through(self, head: Head, *, moved: bool) -> Vectors:
        passage_nd = _encode(head, self.passage_nd, Role.PASSAGE) if moved else self.passage_nd
        return Vectors(passage_nd, head, moved)


def _encode(head: Head, rows_nd: NDArray[np.float32], role: Role) -> NDArray[np.float32]:
    from ragcun_cache.heads.apply import apply_head

    encoded_nd = apply_head(head, rows_nd, role)
    norm_n = np.linalg.norm(encoded_nd, axis=1, keepdims=True)
    return np.asarray(encoded_nd / np.where(norm_n > 0, norm_n, 1), dtype=np.float32)
