"""Adapters: small maps from the identity, learnt from the judgements of one collection."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import AdapterMap, AdapterShape, HeadConfig, Side
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.projection import Projection


class LinearMap(nn.Module):
    """``W x + b``, from the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x_bd: Tensor) -> Tensor:
        """Map (b, d) to (b, d)."""
        return nn.functional.linear(x_bd, self.weight, self.bias)

    def departure(self) -> Tensor:
        """Return ``||W - I||_F^2 + ||b||^2``, a scalar."""
        moved = self.weight - torch.eye(len(self.weight), device=self.weight.device)
        return moved.square().sum() + self.bias.square().sum()

    @torch.no_grad()
    def mix(self, alpha: float) -> None:
        """Become ``I + alpha (W - I)`` and ``alpha b``."""
        self.weight.copy_(torch.eye(len(self.weight)).lerp(self.weight, alpha))
        self.bias.mul_(alpha)


class LowRankMap(nn.Module):
    """``x + B A x``, from ``B = 0``: rank * 2d numbers where a linear map has d^2."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, dim) / dim**0.5)
        self.up = nn.Parameter(torch.zeros(dim, rank))

    def forward(self, x_bd: Tensor) -> Tensor:
        """Map (b, d) to (b, d)."""
        return x_bd + (x_bd @ self.down.T) @ self.up.T

    def departure(self) -> Tensor:
        """Return ``||B A||_F^2``, a scalar."""
        return (self.up @ self.down).square().sum()

    @torch.no_grad()
    def mix(self, alpha: float) -> None:
        """Become ``x + alpha B A x``."""
        self.up.mul_(alpha)


class MlpMap(Projection):
    """``x + MLP(x)``, the projection of other heads from the identity."""

    @property
    def _last(self) -> nn.Linear:
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        return last

    def departure(self) -> Tensor:
        """Return the squared norm of the last layer, whose output is what is added to the identity."""
        return self._last.weight.square().sum() + self._last.bias.square().sum()

    @torch.no_grad()
    def mix(self, alpha: float) -> None:
        """Become ``x + alpha MLP(x)``."""
        self._last.weight.mul_(alpha)
        self._last.bias.mul_(alpha)


def _map_of(config: HeadConfig, shape: AdapterShape) -> LinearMap | LowRankMap | MlpMap:
    if shape.map == AdapterMap.LINEAR:
        return LinearMap(config.in_dim)
    if shape.map == AdapterMap.LOW_RANK:
        assert shape.rank is not None, "checked by the config"
        return LowRankMap(config.in_dim, shape.rank)
    return MlpMap(config)


class AdapterHead(Head):
    """One map, on queries only or on both sides. Until it is trained it returns each row bit for bit."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        assert config.adapter is not None, "checked by the config"
        self.side = config.adapter.side
        self.map = _map_of(config, config.adapter)

    def encode_query(self, x_bd: Tensor) -> Tensor:
        """Map query vectors (b, d) to (b, d)."""
        y_bd: Tensor = self.map(x_bd)
        return y_bd

    def encode_passage(self, x_bd: Tensor) -> Tensor:
        """Map passage vectors (b, d) to (b, d); themselves, for an adapter of queries."""
        return x_bd if self.side == Side.QUERY else self.encode_query(x_bd)

    def departure(self) -> Tensor:
        """Return how far the map is from the identity, a scalar that is 0 there: what training is regularised by."""
        return self.map.departure()

    def mixed(self, alpha: float) -> Self:
        """Return a copy whose map is ``(1 - alpha)`` of the identity and ``alpha`` of this one; ``alpha`` in [0, 1]."""
        mixed = copy.deepcopy(self)
        mixed.map.mix(alpha)
        return mixed.eval().requires_grad_(False)
