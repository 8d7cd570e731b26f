from __future__ import annotations

import torch

from ragcun_cache.objectives.predictive import predictive_loss


def test_is_the_mean_square_and_leaves_the_target_alone() -> None:
    prediction_be = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    target_be = torch.tensor([[1.0, 0.0], [0.0, 4.0]], requires_grad=True)
    loss = predictive_loss(prediction_be, target_be)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == (4.0 + 16.0) / 4
    assert target_be.grad is None
    torch.testing.assert_close(prediction_be.grad, (prediction_be - target_be).detach() / 2)
