"""What a training step cannot do without: its matrix products, and the memory that its optimiser moves."""

from __future__ import annotations

import time
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
_ADD_PASSES = 6


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
    """The bytes that a step of AdamW and EMA moves, and two ways to see how fast this machine moves as many.

    Both go over four arrays as large as weights, gradients and moments, which do nothing else: like a step they come
    back to a byte only after all the others, and write only what they have read.
    """

    def __init__(self, head: Head) -> None:
        learning = sum(parameter.nbytes for parameter in head.parameters() if parameter.requires_grad)
        averaged = sum(kept.nbytes for target, _ in head.ema_pairs() for kept in target.parameters())
        self.step_bytes = _ADAMW_PASSES * learning + _EMA_PASSES * averaged
        self.add_bytes, self.adamw_bytes = _ADD_PASSES * learning, _ADAMW_PASSES * learning
        self._arrays = [torch.ones(learning // 4) for _ in range(4)]
        self._alone = torch.ones(learning // 4, requires_grad=True)
        self._alone.grad = torch.ones_like(self._alone)
        self._adamw = torch.optim.AdamW([self._alone], fused=True)

    def add(self) -> None:
        """Add one array to another in place, twice: move ``add_bytes``."""
        weights, gradients, first, second = self._arrays
        weights.add_(gradients, alpha=1e-9)
        first.add_(second, alpha=1e-9)

    def adamw(self) -> None:
        """Take a step of AdamW alone: move ``adamw_bytes``. A core that reads four arrays at once waits less."""
        self._adamw.step()


class BareSteps:
    """Steps of products and of the optimiser's memory, in turns: each finds the caches as a step leaves them to it.

    Repeated by themselves both are faster, the memory above all; but no step does only one of them.
    """

    def __init__(self, products: MatrixProducts, memory: OptimiserMemory) -> None:
        self._parts: dict[str, Callable[[], object]] = {
            "products": products.compute,
            "AdamW": memory.adamw,
            "add": memory.add,
        }
        self.seconds: dict[str, list[float]] = {name: [] for name in self._parts}

    def take(self, steps: int) -> None:
        """Take so many steps and note the seconds of each part, giving back its memory included."""
        totals = dict.fromkeys(self._parts, 0.0)
        for _ in range(steps):
            for name, part in self._parts.items():
                started = time.perf_counter()
                part()
                totals[name] += time.perf_counter() - started
        for name, seconds in totals.items():
            self.seconds[name].append(seconds)
