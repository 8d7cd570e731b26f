"""The one contract of all heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig


@dataclass(frozen=True)
class PairBatch:
    """Encoder vectors of b judged pairs, row i of one with row i of the other: both (b, d) float32.

    ``negative_bb`` (b, b) bool says which passages (columns) are not judged relevant to which queries (rows); None
    where nothing is known but the pairs themselves.
    """

    query_bd: Tensor
    passage_bd: Tensor
    negative_bb: Tensor | None = None

    def negatives(self) -> Tensor:
        """Return ``negative_bb``, or without it every passage but a query's own."""
        if self.negative_bb is not None:
            return self.negative_bb
        return ~torch.eye(len(self.query_bd), dtype=torch.bool, device=self.query_bd.device)


class Head(nn.Module, ABC):
    """Maps encoder vectors to the vectors that are searched, and knows the losses it learns by.

    It never sees text, nor the files of a cache.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.similarity = config.similarity

    @abstractmethod
    def encode_query(self, x_bd: Tensor) -> Tensor:
        """Map query vectors (b, d) to (b, e)."""

    @abstractmethod
    def encode_passage(self, x_bd: Tensor) -> Tensor:
        """Map passage vectors (b, d) to (b, e)."""

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return the named, unweighted loss terms (scalars) of a batch; none for a head with nothing to learn.

        ``step`` counts from 0 over the whole training, for terms that are drawn anew at each step.
        """
        return {}

    def watched(self) -> dict[str, Tensor]:
        """Return figures (scalars) of the latest batch that nothing is learnt by but that are worth a look."""
        return {}

    def fit_output(self, query_nd: Tensor, passage_nd: Tensor) -> None:
        """Take what is done to finished outputs from the training pairs' vectors, (n, d) each, if there is anything."""

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return (target, online) modules: each target follows its online twin as a moving average."""
        return []
