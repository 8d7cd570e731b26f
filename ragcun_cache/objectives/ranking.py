"""Ranking losses over lists of candidates: scores (b, c), grades (b, c), and which places hold a candidate (b, c)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def listwise_loss(score_bc: Tensor, grade_bc: Tensor, present_bc: Tensor) -> Tensor:
    """Return the mean cross-entropy of the softmax of the scores with the grades as target (ListNet, top one)."""
    log_share_bc = score_bc.masked_fill(~present_bc, -torch.inf).log_softmax(dim=1).masked_fill(~present_bc, 0.0)
    target_bc = grade_bc / grade_bc.sum(dim=1, keepdim=True)
    return -(target_bc * log_share_bc).sum(dim=1).mean()


def weighted_pairwise_loss(score_bc: Tensor, grade_bc: Tensor, present_bc: Tensor) -> Tensor:
    """Return the mean over queries of ``sum_jk (y_j - y_k) log(1 + exp(s_k - s_j))`` over pairs with ``y_j > y_k``.

    Divided by the sum of the weights, so that queries with many judgements count as others do. Source: Search-Adaptor,
    arXiv 2310.08750, equation 2.
    """
    weight_bjk = (grade_bc[:, :, None] - grade_bc[:, None, :]).clamp(min=0)
    weight_bjk = weight_bjk * (present_bc[:, :, None] & present_bc[:, None, :])
    loss_bjk = softplus(score_bc[:, None, :] - score_bc[:, :, None])
    return ((weight_bjk * loss_bjk).sum(dim=(1, 2)) / weight_bjk.sum(dim=(1, 2)).clamp(min=1e-9)).mean()


def margin_loss(score_bc: Tensor, grade_bc: Tensor, present_bc: Tensor, margin: float) -> Tensor:
    """Return the mean of ``max(0, margin + s_k - s_j)`` over pairs of a relevant j and an irrelevant k of one query.

    Pairs that are apart by the margin have no gradient: what is good already is left alone.
    """
    pair_bjk = (grade_bc > 0)[:, :, None] & ((grade_bc == 0) & present_bc)[:, None, :]
    loss_bjk = (margin + score_bc[:, None, :] - score_bc[:, :, None]).clamp(min=0) * pair_bjk
    return (loss_bjk.sum(dim=(1, 2)) / pair_bjk.sum(dim=(1, 2)).clamp(min=1)).mean()
