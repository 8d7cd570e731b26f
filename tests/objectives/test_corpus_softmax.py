from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax, normalize

from ragcun_cache.objectives.corpus_softmax import Targets, corpus_softmax_loss


def data(n: int = 50, b: int = 6, d: int = 8) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    query_bd = normalize(torch.randn(b, d, generator=generator), dim=1).requires_grad_()
    corpus_nd = normalize(torch.randn(n, d, generator=generator), dim=1)
    query = torch.tensor([0, 0, 1, 2, 3, 4, 5, 5])
    row = torch.tensor([3, 49, 0, 12, 48, 13, 1, 2])
    share = torch.tensor([0.75, 0.25, 1, 1, 1, 1, 0.5, 0.5])
    return query_bd, corpus_nd, Targets(query, row, share, torch.tensor([1, 1, 4]), torch.tensor([7, 49, 25]))


def expected(query_bd: torch.Tensor, corpus_nd: torch.Tensor, targets: Targets, temperature: float) -> torch.Tensor:
    score_bn = query_bd @ corpus_nd.float().T / temperature
    mask = torch.zeros_like(score_bn, dtype=torch.bool)
    mask[targets.masked_query, targets.masked_row] = True
    log_share_bn = log_softmax(score_bn.masked_fill(mask, -torch.inf), dim=1)
    target_bn = torch.zeros_like(score_bn)
    target_bn[targets.query, targets.row] = targets.share
    return -(target_bn * log_share_bn.masked_fill(mask, 0)).sum(dim=1).mean()


@pytest.mark.parametrize("block_rows", [1, 7, 50, 1000])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_loss_and_gradient_are_those_of_the_whole_matrix(block_rows: int, temperature: float) -> None:
    query_bd, corpus_nd, targets = data()
    loss = corpus_softmax_loss(query_bd, corpus_nd, targets, temperature, block_rows=block_rows)
    (2 * loss).backward()
    found_bd = query_bd.grad
    query_bd.grad = None
    wanted = expected(query_bd, corpus_nd, targets, temperature)
    (2 * wanted).backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found_bd, query_bd.grad, rtol=1e-4, atol=1e-6)


def test_half_precision_passages_are_scored_in_float32() -> None:
    query_bd, corpus_nd, targets = data()
    half_nd = corpus_nd.half()
    loss = corpus_softmax_loss(query_bd, half_nd, targets, 0.05)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected(query_bd, half_nd.float(), targets, 0.05))


def test_large_scores_do_not_overflow() -> None:
    query_bd, corpus_nd, targets = data()
    loss = corpus_softmax_loss(query_bd, corpus_nd, targets, 1e-4, block_rows=3)
    loss.backward()
    assert loss.isfinite() and query_bd.grad is not None and query_bd.grad.isfinite().all()
