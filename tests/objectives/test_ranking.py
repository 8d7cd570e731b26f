from __future__ import annotations

import math

import pytest
import torch

from ragcun_cache.objectives.ranking import listwise_loss, margin_loss, weighted_pairwise_loss

SCORES = torch.tensor([[2.0, 1.0, 0.0, 9.0], [0.5, 0.0, 0.0, 0.0]])
GRADES = torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
PRESENT = torch.tensor([[True, True, True, False], [True, True, True, True]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_listwise_is_the_cross_entropy_over_what_is_present() -> None:
    first_total = math.exp(2) + math.exp(1) + 1
    first = -(2 / 3 * (2 - math.log(first_total)) + 1 / 3 * (1 - math.log(first_total)))
    second = math.log(math.exp(0.5) + 3)
    assert listwise_loss(SCORES, GRADES, PRESENT).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_weighted_pairwise_weighs_by_the_difference_of_grades() -> None:
    first = (1 * softplus(-1) + 2 * softplus(-2) + 1 * softplus(-1)) / 4
    second = (softplus(0.5) + softplus(0) + softplus(0)) / 3
    found = weighted_pairwise_loss(SCORES, GRADES, PRESENT)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_margin_leaves_alone_what_is_apart() -> None:
    scores = SCORES.clone().requires_grad_()
    loss = margin_loss(scores, GRADES, PRESENT, margin=0.5)
    assert loss.item() == pytest.approx((0 + (1.0 + 0.5 + 0.5) / 3) / 2)
    loss.backward()
    assert scores.grad is not None
    assert not scores.grad[0].any() and scores.grad[1].abs().gt(0).all()


@pytest.mark.parametrize("loss", [listwise_loss, weighted_pairwise_loss])
def test_absent_places_have_no_gradient(loss) -> None:
    scores = SCORES.clone().requires_grad_()
    loss(scores, GRADES, PRESENT).backward()
    assert scores.grad is not None and scores.grad.isfinite().all()
    assert scores.grad[0, 3] == 0 and scores.grad[0, 0] < 0 < scores.grad[0, 2]
