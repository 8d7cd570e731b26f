from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from ragcun_cache.objectives.sigreg import sigreg_loss

NULL = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))


def normal(n: int, e: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, e, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def integral(x_n: np.ndarray, t_max: float) -> float:
    """The statistic of points on a line: each of them is its own projection, up to the sign that changes nothing."""

    def integrand(t: float) -> float:
        gauss = math.exp(-t * t / 2)
        return float(abs(np.exp(1j * t * x_n).mean() - gauss) ** 2 * gauss)

    return 2 * len(x_n) * quad(integrand, 0, t_max, epsabs=1e-12, limit=200)[0]


POINTS = [[0.0], [0.0, 0.0, 0.0], [-1.3, 0.2, 0.9, 2.5], [5.0, -4.0, 3.0, 0.1, 0.1], list(np.linspace(-2, 2, 40))]


@pytest.mark.parametrize("x_n", POINTS)
@pytest.mark.parametrize("t_max", [3.0, 5.0])
def test_agrees_with_numerical_integration_and_the_more_so_with_more_knots(x_n: list[float], t_max: float) -> None:
    z_n1 = torch.tensor(x_n, dtype=torch.float64)[:, None]
    exact = integral(np.array(x_n), t_max)
    errors = [
        abs(sigreg_loss(z_n1, step=0, slices=3, knots=knots, t_max=t_max).item() - exact) for knots in (17, 65, 257)
    ]
    # To leading order the rule is off by h^2 / 12 times the slope at t_max (that at 0 is 0): a quarter of it for half
    # the spacing.
    assert errors[0] < 0.02 * len(x_n)
    assert errors[1] < errors[0] / 10 + 1e-9
    assert errors[2] < errors[1] / 10 + 1e-9


def test_a_projection_is_onto_a_unit_vector() -> None:
    """Rows along one line, seen from a direction at the angle w, are points shrunk by cos w: the mean is over those."""
    x_n = torch.linspace(-2, 2, 9, dtype=torch.float64)
    along_e = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    slice_ek = torch.randn(3, 5, generator=torch.Generator().manual_seed(7)).double()
    cosine_k = along_e @ (slice_ek / slice_ek.norm(dim=0))
    exact = np.mean([integral((x_n * cosine).numpy(), 3.0) for cosine in cosine_k])
    found = sigreg_loss(x_n[:, None] * along_e, step=7, slices=5, knots=513)
    assert found.item() == pytest.approx(exact, rel=1e-5)


def test_two_views_as_one_sample_give_at_most_the_sum_of_both_and_just_that_if_they_are_equal() -> None:
    """What docs/heads.md halves the weight of LeJEPA's paper by, whose loss is the mean over views."""
    query_ne, passage_ne = normal(32, 8, 0, torch.float64) * 0.5 + 0.3, normal(32, 8, 1, torch.float64) * 0.4
    query, passage, both = (
        sigreg_loss(z_ne, step=0).item() for z_ne in (query_ne, passage_ne, torch.cat([query_ne, passage_ne]))
    )
    assert both < query + passage
    assert sigreg_loss(torch.cat([query_ne, query_ne]), step=0).item() == pytest.approx(2 * query)


@pytest.mark.parametrize(("n", "e"), [(32, 16), (64, 768), (256, 64)])
def test_gaussian_rows_give_the_null_value(n: int, e: int) -> None:
    values = [sigreg_loss(normal(n, e, seed), step=seed).item() for seed in range(30)]
    standard_error = np.std(values, ddof=1) / math.sqrt(len(values))
    # What lies beyond t_max = 3 is 0.007 of it.
    assert np.mean(values) == pytest.approx(NULL - 0.007, abs=4 * standard_error)
    assert standard_error < 0.1


@pytest.mark.parametrize("n", [32, 1024])
def test_collapsed_and_unit_norm_rows_are_far_and_scaled_ones_are_not(n: int) -> None:
    unit_ne = torch.nn.functional.normalize(normal(n, 768, 0), dim=1)
    assert sigreg_loss(torch.zeros(n, 768), step=0).item() == pytest.approx(0.41 * n, rel=0.02)
    assert sigreg_loss(unit_ne, step=0).item() == pytest.approx(0.4 * n, rel=0.03)
    assert sigreg_loss(0.017 * normal(n, 768, 0), step=0).item() > 0.3 * n
    assert sigreg_loss(unit_ne * math.sqrt(768), step=0).item() == pytest.approx(NULL, abs=0.3)


def test_without_the_factor_n() -> None:
    z_ne = normal(50, 8, 0)
    assert sigreg_loss(z_ne, step=3, normalize_by_n=True).item() * 50 == pytest.approx(sigreg_loss(z_ne, step=3).item())


@pytest.mark.parametrize(("n", "e"), [(1, 4), (7, 3), (5, 12)])
def test_gradients(n: int, e: int) -> None:
    z_ne = normal(n, e, 1, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sigreg_loss(z, step=5, slices=6, knots=9), (z_ne,))


@pytest.mark.parametrize("z_ne", [torch.zeros(16, 32), torch.ones(16, 32), 1e4 * normal(16, 32, 0), normal(16, 32, 0)])
def test_gradients_are_finite(z_ne: Tensor) -> None:
    z_ne = z_ne.clone().requires_grad_()
    sigreg_loss(z_ne, step=0).backward()
    assert z_ne.grad is not None
    assert z_ne.grad.isfinite().all()


def test_descent_makes_a_batch_more_gaussian() -> None:
    z_ne = (0.1 * normal(32, 8, 0)).requires_grad_()
    optimizer = torch.optim.Adam([z_ne], lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        sigreg_loss(z_ne, step=step, slices=64).backward()
        optimizer.step()
    assert sigreg_loss(z_ne, step=1000).item() < NULL
    assert z_ne.std().item() == pytest.approx(1.0, abs=0.1)


def test_slices_follow_the_step_and_leave_the_global_generator_alone() -> None:
    z_ne = normal(20, 16, 0) ** 3
    before = torch.random.get_rng_state()
    first = sigreg_loss(z_ne, step=4)
    torch.rand(3)
    assert sigreg_loss(z_ne, step=4).item() == first.item()
    assert sigreg_loss(z_ne, step=5).item() != first.item()
    torch.random.set_rng_state(before)
    sigreg_loss(z_ne, step=4)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_computed_in_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    z_ne = normal(64, 32, 0).to(dtype)
    expected = sigreg_loss(z_ne.float(), step=0)
    assert torch.equal(sigreg_loss(z_ne, step=0), expected)
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sigreg_loss(z_ne.float(), step=0), expected)
    assert sigreg_loss(z_ne.double(), step=0).dtype == torch.float64
    leaf_ne = z_ne.clone().requires_grad_()
    sigreg_loss(leaf_ne, step=0).backward()
    assert leaf_ne.grad is not None
    assert leaf_ne.grad.dtype == dtype
