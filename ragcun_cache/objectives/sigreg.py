"""SIGReg: how far a batch of outputs is from an isotropic Gaussian, seen from random directions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sigreg_loss(
    z_ne: Tensor, *, step: int, slices: int = 256, knots: int = 17, t_max: float = 3.0, normalize_by_n: bool = False
) -> Tensor:
    """Return the mean over random unit directions ``a`` of the Epps-Pulley statistic of the projections ``z a``.

    ``n * integral |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt`` with ``phi(t) = mean_i exp(i t a.z_i)``, by the
    trapezoid rule on ``knots`` points of [0, ``t_max``], doubled because the integrand is even. ``normalize_by_n``
    leaves out the factor n. Source: LeJEPA, arXiv 2511.08544 (the statistic: Epps and Pulley, Biometrika 70, 1983).

    ``z_ne`` is (n, e), queries and passages together; the result is a scalar, float64 for float64 rows and float32 for
    all others, autocast or not. Rows of N(0, I) give ``sqrt(2 pi) (1 - 1 / sqrt 3) = 1.059`` on average for any n and
    e. The scale is part of the question: unit-norm rows, and rows that are all equal, give about 0.4 n, so outputs of
    unit norm have to be multiplied by sqrt(e) first.

    Directions are drawn by a generator of their own that ``step`` seeds, on the CPU: the same for every process,
    device and resumed run. Gradients are found on the way and one for each projection is kept, so that memory is
    O((n + e) slices) whatever ``knots`` is; they cannot be differentiated again.
    """
    generator = torch.Generator().manual_seed(step)
    slice_ek = torch.randn(z_ne.shape[1], slices, generator=generator)
    dtype = torch.float64 if z_ne.dtype == torch.float64 else torch.float32
    slice_ek = torch.nn.functional.normalize(slice_ek.to(z_ne.device, dtype), dim=0)
    with torch.autocast(z_ne.device.type, enabled=False):
        projected_nk = z_ne.to(dtype) @ slice_ek
        statistic: Tensor = _EppsPulley.apply(projected_nk, knots, t_max)  # type: ignore[no-untyped-call]
    return statistic if normalize_by_n else statistic * len(z_ne)


class _EppsPulley(torch.autograd.Function):
    """The mean over columns of the statistic without its factor n.

    With ``r`` and ``s`` the means over a column of ``cos(t x)`` and ``sin(t x)``, the integrand's gradient by ``x_i``
    is ``2 t (s cos(t x_i) - (r - exp(-t^2 / 2)) sin(t x_i)) exp(-t^2 / 2) / n``.
    """

    @staticmethod
    def forward(ctx: Any, projected_nk: Tensor, knots: int, t_max: float) -> Tensor:
        n, slices = projected_nk.shape
        spacing = t_max / (knots - 1)
        total_k = projected_nk.new_zeros(slices)
        gradient_nk = torch.zeros_like(projected_nk) if ctx.needs_input_grad[0] else None
        # At t = 0 the integrand is 0, and so is its gradient.
        for knot in range(1, knots):
            t = knot * spacing
            gauss = math.exp(-0.5 * t * t)
            weight = 2 * spacing * gauss * (0.5 if knot == knots - 1 else 1.0)
            angle_nk = projected_nk * t
            cos_nk, sin_nk = angle_nk.cos(), angle_nk.sin_()
            real_k, imaginary_k = cos_nk.mean(dim=0) - gauss, sin_nk.mean(dim=0)
            total_k += weight * (real_k.square() + imaginary_k.square())
            if gradient_nk is not None:
                gradient_nk += cos_nk.mul_(2 * t * weight * imaginary_k) - sin_nk.mul_(2 * t * weight * real_k)
        if gradient_nk is not None:
            ctx.save_for_backward(gradient_nk / (n * slices))
        return total_k.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient_nk,) = ctx.saved_tensors
        return grad * gradient_nk, None, None
