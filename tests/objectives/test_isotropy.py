from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ragcun_cache.objectives.isotropy import isotropy_loss


def full_form(z_ne: Tensor, *, scale_free: bool) -> Tensor:
    """The definition, with its e x e covariance."""
    covariance = torch.cov(z_ne.T)
    variance = covariance.trace() / z_ne.shape[1] if scale_free else z_ne.var()
    distance: Tensor = torch.linalg.matrix_norm(covariance - variance * torch.eye(z_ne.shape[1], dtype=z_ne.dtype))
    return distance / z_ne.shape[1] / (variance if scale_free else 1.0)


def outputs(n: int, e: int, seed: int, *, offset: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    column_e = torch.rand(e, generator=generator, dtype=dtype) + 0.1
    return torch.randn(n, e, generator=generator, dtype=dtype) * column_e + offset * column_e.flip(0)


@settings(max_examples=60)
@given(n=st.integers(2, 40), e=st.integers(2, 40), seed=st.integers(0, 10_000), scale_free=st.booleans())
def test_gram_form_equals_full_form(n: int, e: int, seed: int, scale_free: bool) -> None:
    z_ne = outputs(n, e, seed)
    expected = full_form(z_ne, scale_free=scale_free)
    torch.testing.assert_close(isotropy_loss(z_ne, scale_free=scale_free), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("n", "e"), [(32, 768), (512, 768), (800, 768)])
def test_float32_agrees_with_the_full_form_to_a_millionth(n: int, e: int, scale_free: bool) -> None:
    z_ne = outputs(n, e, 0)
    expected = full_form(z_ne, scale_free=scale_free).item()
    assert isotropy_loss(z_ne.float(), scale_free=scale_free).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("n", "e"), [(4, 7), (9, 5)])
def test_gradient(n: int, e: int, scale_free: bool) -> None:
    z_ne = outputs(n, e, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: isotropy_loss(z, scale_free=scale_free), (z_ne,))


@pytest.mark.parametrize("scale", [1e-3, 0.1, 30.0])
def test_published_form_is_quadratic_in_scale_and_the_other_is_free_of_it(scale: float) -> None:
    z_ne = outputs(16, 24, 2)
    for scale_free, factor in ((False, scale**2), (True, 1.0)):
        expected = factor * isotropy_loss(z_ne, scale_free=scale_free)
        torch.testing.assert_close(isotropy_loss(scale * z_ne, scale_free=scale_free), expected)


def test_moving_away_from_the_origin_does_not_lower_the_scale_free_form() -> None:
    z_ne = outputs(16, 24, 3)
    moved_ne = z_ne + 10.0 * torch.arange(24)
    torch.testing.assert_close(isotropy_loss(moved_ne, scale_free=True), isotropy_loss(z_ne, scale_free=True))


def test_zero_for_an_exactly_isotropic_set() -> None:
    # The rows +-e_i have the covariance of a multiple of the identity and the mean 0; their variance over all
    # entries has another divisor than C, so only the scale-free form is exactly 0.
    corners_ne = torch.cat([torch.eye(6, dtype=torch.float64), -torch.eye(6, dtype=torch.float64)])
    assert isotropy_loss(corners_ne, scale_free=True).item() == pytest.approx(0.0, abs=1e-12)
    assert isotropy_loss(corners_ne, scale_free=False).item() < 0.01


def test_collapsed_outputs_have_a_finite_gradient_as_published() -> None:
    z_ne = torch.full((8, 12), 0.5, requires_grad=True)
    isotropy_loss(z_ne, scale_free=False).backward()  # type: ignore[no-untyped-call]
    assert z_ne.grad is not None
    assert bool(z_ne.grad.isfinite().all())


@pytest.mark.parametrize("n", [16, 64])
def test_products_are_not_rounded_under_autocast(n: int) -> None:
    z_ne = outputs(n, 24, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = isotropy_loss(z_ne, scale_free=False)
    assert torch.equal(inside, isotropy_loss(z_ne, scale_free=False))
