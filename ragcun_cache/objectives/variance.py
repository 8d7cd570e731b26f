"""A floor under the scale of the outputs, for losses that reward shrinking."""

from __future__ import annotations

from torch import Tensor


def variance_loss(z_ne: Tensor, target_std: float = 1.0) -> Tensor:
    """Return ``(std(z) - target)^2`` of the standard deviation over all entries of (n, e), a scalar.

    Source: ``L_r`` of ctn/ragcun (``SIGRegLoss`` in ``train_contrastive.py``), whose target is 1.
    """
    return (z_ne.std() - target_std).square()
