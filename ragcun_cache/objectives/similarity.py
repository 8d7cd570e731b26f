"""Scores of every query of a batch with every passage of it, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ragcun_cache.similarity import Similarity


def batch_scores(query_be: Tensor, passage_be: Tensor, similarity: Similarity) -> Tensor:
    """Return the scores (b, b) of queries (rows) with passages (columns): higher is nearer.

    Cosine, dot product, or for l2 the negative Euclidean distance (not its square), as ``ctn/ragcun`` searched by.
    """
    if similarity == Similarity.L2:
        # Through the differences, not the Gram matrix, whose rounding is as large as the distances of near rows.
        return -torch.cdist(query_be, passage_be, compute_mode="donot_use_mm_for_euclid_dist")
    if similarity == Similarity.COSINE:
        query_be, passage_be = normalize(query_be, dim=1), normalize(passage_be, dim=1)
    with torch.autocast(query_be.device.type, enabled=False):
        return query_be @ passage_be.T
