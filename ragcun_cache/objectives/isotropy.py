"""Covariance isotropy: how far the covariance of a batch of outputs is from a multiple of the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def isotropy_loss(z_ne: Tensor, *, scale_free: bool) -> Tensor:
    """Return ``||C - v I||_F / e`` (published) or ``||C / v - I||_F / e`` (scale-free), a scalar of ``z_ne``'s dtype.

    ``z_ne`` is (n, e), n >= 2 rows: the outputs for queries and passages together. ``C`` is their covariance, centred
    and divided by n - 1.

    Published: ``v`` is the variance over all entries, so it holds the spread of the column means too. Source: the
    loss that ctn/ragcun trained with (``SIGRegLoss`` in its ``train_contrastive.py``, which in spite of its name is
    not the SIGReg of arXiv 2511.08544). It is quadratic in the scale of ``z_ne``: outputs that shrink minimise it.

    Scale-free: ``v = tr C / e``, the mean variance of a column. Neither a factor on ``z_ne`` nor an offset of a column
    changes it. (Dividing by the published ``v`` instead would let outputs lower it by drifting away from the origin:
    offsets raise ``v`` and leave ``C`` alone.) It is nan if all rows are equal.

    With fewer rows than dimensions no e x e matrix is made. For the centred rows ``X``, the Gram matrix
    ``G = X X^T / (n - 1)`` has the nonzero eigenvalues of ``C``, hence, exactly,
    ``||C - v I||_F^2 = ||G - v I||_F^2 + v^2 (e - n)``: a sum of positive parts, so nothing cancels.
    """
    n, e = z_ne.shape
    centred_ne = z_ne - z_ne.mean(dim=0)
    with torch.autocast(z_ne.device.type, enabled=False):
        square = (centred_ne @ centred_ne.T if n < e else centred_ne.T @ centred_ne) / (n - 1)
    if scale_free:
        square = square / (square.trace() / e)
        variance = torch.ones_like(square[0, 0])
    else:
        variance = z_ne.var()
    excess = square - variance * torch.eye(len(square), dtype=z_ne.dtype, device=z_ne.device)
    unspanned = variance * math.sqrt(max(e - n, 0))
    # Row by row, then over the rows: one float32 sum over all entries would be off by 1e-5 of its value. And
    # vector_norm has the subgradient 0 at 0, where the square root of a sum would give nan.
    row_norms = torch.linalg.vector_norm(excess, dim=1)
    distance: Tensor = torch.linalg.vector_norm(torch.cat([row_norms, unspanned.reshape(1)]))
    return distance / e
