"""A penalty on what a residual predictor adds to its input."""

from __future__ import annotations

from torch import Tensor


def residual_loss(delta_be: Tensor) -> Tensor:
    """Return the mean over rows of ``||delta||^2`` (the sum over entries), a scalar, for residuals (b, e).

    Source: the residual term of ResPred (``respred_model.py`` of ctn/ragcun).
    """
    return delta_be.square().sum(dim=1).mean()
