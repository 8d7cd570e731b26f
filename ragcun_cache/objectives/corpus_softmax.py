"""Softmax over a whole corpus of fixed vectors: with cached passages every passage is a negative, and none is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# At 768 dims a block of float32 is 50 MB, and the scores of 128 queries 8 MB.
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Targets:
    """What a batch of b queries should find, and what counts neither way.

    (j,) each, a judgement a place: ``query`` is a position in the batch, ``row`` a row of the corpus (both int64),
    ``share`` the part that the passage has in its query's relevance (float32, adding up to 1 for each query).
    (k,) each: ``masked_row`` is no negative of ``masked_query``.
    """

    query: Tensor
    row: Tensor
    share: Tensor
    masked_query: Tensor
    masked_row: Tensor


def corpus_softmax_loss(
    query_bd: Tensor, corpus_nd: Tensor, targets: Targets, temperature: float, *, block_rows: int = _BLOCK_ROWS
) -> Tensor:
    """Return the mean over queries of ``-sum_p share_p log softmax(q . p / temperature)`` over all n passages.

    With several positives, or graded ones, the listwise cross-entropy of ListNet (Cao et al., ICML 2007) with the
    shares as target. ``query_bd`` (b, d) float32 is differentiated, ``corpus_nd`` (n, d), float16 or float32, is not:
    it is read in blocks, with a running maximum and sum as in online softmax (Milakov and Gimelshein, arXiv
    1805.02867), so that no (b, n) matrix and no graph over the corpus is kept. Time is 4bnd, memory one block.
    """
    loss: Tensor = _CorpusSoftmax.apply(query_bd, corpus_nd, targets, temperature, block_rows)  # type: ignore[no-untyped-call]
    return loss


class _CorpusSoftmax(torch.autograd.Function):
    """The gradient of query i is ``(sum_p softmax_ip p - sum_p share_ip p) / temperature``, found on the way."""

    @staticmethod
    def forward(
        ctx: Any, query_bd: Tensor, corpus_nd: Tensor, targets: Targets, temperature: float, block_rows: int
    ) -> Tensor:
        n_queries = len(query_bd)
        highest_b1 = query_bd.new_full((n_queries, 1), -torch.inf)
        total_b1 = query_bd.new_zeros((n_queries, 1))
        expected_bd = torch.zeros_like(query_bd)
        for first in range(0, len(corpus_nd), block_rows):
            block_rd = corpus_nd[first : first + block_rows].to(query_bd.dtype)
            score_br = query_bd @ block_rd.T / temperature
            inside_k = (targets.masked_row >= first) & (targets.masked_row < first + len(block_rd))
            score_br[targets.masked_query[inside_k], targets.masked_row[inside_k] - first] = -torch.inf
            new_highest_b1 = torch.maximum(highest_b1, score_br.amax(dim=1, keepdim=True))
            rescale_b1 = (highest_b1 - new_highest_b1).exp()
            weight_br = (score_br - new_highest_b1).exp_()
            total_b1 = total_b1 * rescale_b1 + weight_br.sum(dim=1, keepdim=True)
            expected_bd = expected_bd * rescale_b1 + weight_br @ block_rd
            highest_b1 = new_highest_b1
        wanted_jd = corpus_nd[targets.row].to(query_bd.dtype) * targets.share[:, None]
        wanted_bd = torch.zeros_like(query_bd).index_add_(0, targets.query, wanted_jd)
        ctx.save_for_backward((expected_bd / total_b1 - wanted_bd) / (temperature * n_queries))
        reached_b = (query_bd * wanted_bd).sum(dim=1) / temperature
        return (highest_b1.squeeze(1) + total_b1.squeeze(1).log() - reached_b).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient_bd,) = ctx.saved_tensors
        return grad * gradient_bd, None, None, None, None
