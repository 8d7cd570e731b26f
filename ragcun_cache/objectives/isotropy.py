"""Covariance isotropy: how far the covariance of a batch of outputs is from a multiple of the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def isotropy_loss(z_ne: Tensor, *, scale_free: bool) -> Tensor:
    """Return ``||C - v I||_F / e``, or that divided by ``v``, as a scalar of the dtype of ``z_ne``.

    ``z_ne`` is (n, e), n >= 2 rows: the outputs for queries and passages together. ``C`` is their covariance,
    centred and divided by n - 1; ``v`` is the variance over all entries, which therefore contains the spread of the
    column means too. Source: the loss that ctn/ragcun trained with (``SIGRegLoss`` in its
    ``train_contrastive.py``, which in spite of its name is not the SIGReg of arXiv 2511.08544).

    As published (``scale_free=False``) it is quadratic in the scale of ``z_ne``, so shrinking every output to nothing
    minimises it. The scale-free form does not change when ``z_ne`` is multiplied by a constant; it is not defined
    (nan) for outputs that are all the same number.

    With fewer rows than dimensions no e x e matrix is made. For the centred rows ``X``, the Gram matrix
    ``G = X X^T / (n - 1)`` has the nonzero eigenvalues of ``C``, hence, exactly,
    ``||C - v I||_F^2 = ||G - v I||_F^2 + v^2 (e - n)``: a sum of positive parts, so nothing cancels.
    """
    n, e = z_ne.shape
    variance = z_ne.var()
    centred_ne = z_ne - z_ne.mean(dim=0)
    square = centred_ne @ centred_ne.T if n < e else centred_ne.T @ centred_ne
    excess = square / (n - 1) - variance * torch.eye(len(square), dtype=z_ne.dtype, device=z_ne.device)
    unspanned = variance * math.sqrt(max(e - n, 0))
    # vector_norm has the subgradient 0 at 0, where the square root of a sum would give nan.
    distance: Tensor = torch.linalg.vector_norm(torch.cat([excess.flatten(), unspanned.reshape(1)])) / e
    return distance / variance if scale_free else distance
