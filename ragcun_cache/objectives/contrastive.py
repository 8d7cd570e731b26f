"""Contrastive losses within a batch: query i should be nearer to passage i than to the other passages."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu


def infonce_loss(score_bb: Tensor, negative_bb: Tensor, temperature: float) -> Tensor:
    """Return the mean over queries of ``-log(exp(s_ii / t) / sum_j exp(s_ij / t))``, a scalar.

    ``score_bb`` (b, b) are the scores of queries with passages. The sum runs over passage i and the ``negative_bb``
    (b, b) bool of query i: a passage that is relevant to the query though it came with another one counts neither way.
    Source: van den Oord et al., arXiv 1807.03748, equation 4, with the negatives of the batch.
    """
    own_bb = torch.eye(len(score_bb), dtype=torch.bool, device=score_bb.device)
    logit_bb = (score_bb / temperature).masked_fill(~(negative_bb | own_bb), -torch.inf)
    return cross_entropy(logit_bb, torch.arange(len(score_bb), device=score_bb.device))


def triplet_loss(score_bb: Tensor, negative_bb: Tensor, margin: float) -> Tensor:
    """Return the mean over queries of ``max(0, s_i,hardest - s_ii + margin)``, the hardest of the query's negatives.

    With the negative Euclidean distance as score this is ``max(0, ||q - p+|| - ||q - p-|| + margin)`` as ctn/ragcun
    trained with where it had no mined negatives. A query without a negative in the batch has loss 0.
    """
    hardest_b = score_bb.masked_fill(~negative_bb, -torch.inf).amax(dim=1)
    return relu(hardest_b - score_bb.diagonal() + margin).mean()
