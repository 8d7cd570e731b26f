from __future__ import annotations

import pytest
import torch

from ragcun_cache.objectives.predictive import predictive_cosine_loss, predictive_loss


def test_is_the_mean_square_over_entries() -> None:
    prediction_be = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    target_be = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    loss = predictive_loss(prediction_be, target_be)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == (4.0 + 16.0) / 4
    torch.testing.assert_close(prediction_be.grad, (prediction_be - target_be).detach() / 2)


def test_is_four_times_the_mean_square_of_two_views_from_their_mean() -> None:
    """What docs/heads.md divides the weight of LeJEPA's paper by, whose loss is the latter."""
    view_vbe = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    from_mean = (view_vbe - view_vbe.mean(dim=0)).square().mean().item()
    assert predictive_loss(*view_vbe).item() == pytest.approx(4 * from_mean)


def test_the_cosine_form_feels_direction_and_not_scale() -> None:
    prediction_be, target_be = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    assert predictive_cosine_loss(prediction_be, target_be).item() == pytest.approx((0.0 + 1.0) / 2)
    assert predictive_cosine_loss(prediction_be * 7, target_be / 3).item() == pytest.approx(0.5)


@pytest.mark.parametrize("loss", [predictive_loss, predictive_cosine_loss])
def test_gradients(loss: object) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, rows)  # type: ignore[arg-type, no-untyped-call]
