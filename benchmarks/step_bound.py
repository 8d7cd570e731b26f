"""What a training step cannot do without: its matrix products, and the memory that its optimiser moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ragcun_cache.heads.head import Head

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
# AdamW reads weight, gradient and both moments, and writes all but the gradient; EMA reads two and writes one. The
# gradient itself is written by the product that makes it, and counted there.
_ADAMW_PASSES, _EMA_PASSES = 7, 3
_SWEEP_PASSES = 6


class MatrixProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every matrix product that is computed under it, forward and backward, with its very tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note ``func`` if it is a product, and go on with it."""
        if func in _PRODUCTS:
            self._calls.append((func, args))
        return func(*args, **(kwargs or {}))

    @property
    def flop(self) -> int:
        """A multiplication and an addition for each of m k n: ``2 m k n`` of a product (m, k) by (k, n)."""
        return sum(2 * args[-2].numel() * args[-1].shape[1] for _, args in self._calls)

    def compute(self) -> list[Tensor]:
        """Compute all of them again, in their order, each into memory of its own as in a step."""
        with torch.no_grad():
            return [func(*args) for func, args in self._calls]


class OptimiserMemory:
    """The bytes that a step of AdamW and EMA moves, and as large arrays to move memory in at the same rate.

    A sweep adds to one array another, in place, over four arrays as large as weights, gradients and moments: like the
    optimiser it comes back to a byte only after all the others, and writes only what it has read.
    """

    def __init__(self, head: Head) -> None:
        learning = sum(parameter.nbytes for parameter in head.parameters() if parameter.requires_grad)
        averaged = sum(kept.nbytes for target, _ in head.ema_pairs() for kept in target.parameters())
        self.step_bytes = _ADAMW_PASSES * learning + _EMA_PASSES * averaged
        self.sweep_bytes = _SWEEP_PASSES * learning
        self._arrays = [torch.ones(learning // 4) for _ in range(4)]

    def sweep(self, times: int) -> None:
        """Move ``sweep_bytes`` so many times."""
        weights, gradients, first, second = self._arrays
        for _ in range(times):
            weights.add_(gradients, alpha=1e-9)
            first.add_(second, alpha=1e-9)
