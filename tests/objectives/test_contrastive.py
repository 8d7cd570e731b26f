from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ragcun_cache.objectives.contrastive import infonce_loss, triplet_loss
from ragcun_cache.objectives.residual import residual_loss
from ragcun_cache.objectives.similarity import batch_scores
from ragcun_cache.objectives.variance import variance_loss
from ragcun_cache.similarity import Similarity


def off_diagonal(n: int) -> torch.Tensor:
    return ~torch.eye(n, dtype=torch.bool)


def test_scores_are_cosines_dots_and_negative_distances() -> None:
    rng = np.random.default_rng(0)
    query_be, passage_be = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    scores = {kind: batch_scores(torch.tensor(query_be), torch.tensor(passage_be), kind).numpy() for kind in Similarity}
    np.testing.assert_allclose(scores[Similarity.COSINE], 1 - cdist(query_be, passage_be, "cosine"), atol=1e-12)
    np.testing.assert_allclose(scores[Similarity.DOT], query_be @ passage_be.T, atol=1e-12)
    np.testing.assert_allclose(scores[Similarity.L2], -cdist(query_be, passage_be), atol=1e-12)


@pytest.mark.parametrize("similarity", Similarity)
def test_scores_are_not_rounded_under_autocast(similarity: Similarity) -> None:
    query_be, passage_be = torch.randn(5, 3), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = batch_scores(query_be, passage_be, similarity)
    assert torch.equal(inside, batch_scores(query_be, passage_be, similarity))


def test_infonce_by_hand() -> None:
    score_bb = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.5, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    negative_bb = off_diagonal(3)
    negative_bb[0, 2] = False  # passage 2 is relevant to query 0: no negative of it
    rows = [([1.0, 0.0], 1.0), ([0.5, 0.5, 0.0], 0.5), ([0.0, 0.0, 3.0], 3.0)]
    expected = np.mean([math.log(sum(math.exp(s / 0.5) for s in counted)) - own / 0.5 for counted, own in rows])
    assert infonce_loss(score_bb, negative_bb, 0.5).item() == pytest.approx(expected)


def test_triplet_by_hand() -> None:
    score_bb = -torch.tensor([[1.0, 0.5, 0.2], [3.0, 1.0, 2.0], [1.0, 1.0, 9.0]])
    negative_bb = off_diagonal(3)
    negative_bb[0, 2] = False
    # Query 0: 1.0 - 0.5 + 0.1; query 1: max(0, 1.0 - 2.0 + 0.1); query 2: 9.0 - 1.0 + 0.1.
    assert triplet_loss(score_bb, negative_bb, 0.1).item() == pytest.approx((0.6 + 0.0 + 8.1) / 3)


def test_a_query_without_negatives_costs_nothing() -> None:
    score_bb = torch.tensor([[0.3]], requires_grad=True)
    for loss in (triplet_loss(score_bb, off_diagonal(1), 0.1), infonce_loss(score_bb, off_diagonal(1), 0.05)):
        assert loss.item() == 0.0
        loss.backward()  # type: ignore[no-untyped-call]
    assert not torch.isnan(score_bb.grad).any()  # type: ignore[arg-type]


@given(st.integers(2, 6), st.integers(0, 2**16), st.sampled_from(list(Similarity)))
def test_gradients(n: int, seed: int, similarity: Similarity) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    negative_bb = off_diagonal(n) & (torch.rand(n, n, generator=generator) < 0.7)

    def infonce(query_be: torch.Tensor, passage_be: torch.Tensor) -> torch.Tensor:
        return infonce_loss(batch_scores(query_be, passage_be, similarity), negative_bb, 0.5)

    assert torch.autograd.gradcheck(infonce, rows)  # type: ignore[no-untyped-call]


def test_gradient_of_the_triplet_away_from_its_kinks() -> None:
    rows = [torch.tensor(np.random.default_rng(s).normal(size=(4, 3))).requires_grad_() for s in (1, 2)]
    assert torch.autograd.gradcheck(  # type: ignore[no-untyped-call]
        lambda q, p: triplet_loss(batch_scores(q, p, Similarity.L2), off_diagonal(4), 0.3), rows
    )


def test_variance_and_residual() -> None:
    z_ne = torch.tensor([[0.0, 2.0], [4.0, 6.0]], dtype=torch.float64, requires_grad=True)
    std = math.sqrt(20 / 3)
    assert variance_loss(z_ne).item() == pytest.approx((std - 1) ** 2)
    assert variance_loss(z_ne, std).item() == pytest.approx(0.0)
    assert residual_loss(z_ne).item() == pytest.approx((4 + 16 + 36) / 2)
    for loss in (variance_loss, residual_loss):
        assert torch.autograd.gradcheck(loss, (z_ne,))  # type: ignore[no-untyped-call]
