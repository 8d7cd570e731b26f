"""Exponential moving average of one module in another."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps ``target`` at ``target <- decay * target + (1 - decay) * online``, parameters and floating buffers alike.

    Buffers of other types (counters, masks) cannot be averaged and are copied. The two modules have one structure.
    """

    def __init__(self, target: nn.Module, online: nn.Module, decay: float) -> None:
        self._weight = 1.0 - decay
        twins: list[tuple[Tensor, Tensor]] = list(zip(target.parameters(), online.parameters(), strict=True))
        twins += list(zip(target.buffers(), online.buffers(), strict=True))
        averaged = [(kept, new) for kept, new in twins if kept.is_floating_point()]
        self._kept: list[Tensor] = [kept for kept, _ in averaged]
        self._new: list[Tensor] = [new for _, new in averaged]
        self._copied = [(kept, new) for kept, new in twins if not kept.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step; to be called after the optimiser's."""
        if self._kept:
            # One call for all tensors, in place: as a loop in Python this would be a fifth of a training step.
            torch._foreach_lerp_(self._kept, self._new, self._weight)
        for kept, new in self._copied:
            kept.copy_(new)
