from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ragcun_cache.diagnostics.geometry import (
    effective_rank,
    iso_score,
    mean_cosine,
    mean_norm,
    sigreg_statistic,
    singular_values,
    standard_deviation,
    uniformity,
)

RNG = np.random.default_rng(0)


def rows(n: int, e: int, *, rank: int | None = None, offset: float = 0.0) -> NDArray[np.float32]:
    made_ne = RNG.normal(size=(n, e)) if rank is None else RNG.normal(size=(n, rank)) @ RNG.normal(size=(rank, e))
    return (made_ne + offset).astype(np.float32)


def test_mean_cosine_is_its_definition() -> None:
    rows_ne = rows(9, 5)
    units_ne = rows_ne / np.linalg.norm(rows_ne, axis=1, keepdims=True)
    cosines = units_ne @ units_ne.T
    assert mean_cosine(rows_ne) == pytest.approx(cosines[~np.eye(9, dtype=bool)].mean(), abs=1e-6)
    assert mean_cosine(np.ones((5, 3), np.float32)) == pytest.approx(1.0)
    assert mean_cosine(np.zeros((5, 3), np.float32)) == 0.0


def test_mean_norm() -> None:
    assert mean_norm(np.array([[3, 4], [0, 0]], np.float32)) == pytest.approx(2.5)


def test_standard_deviation_is_numpys_also_far_from_zero() -> None:
    for rows_ne in (rows(50, 7), rows(50, 7, offset=1000.0), np.ones((5, 3), np.float32)):
        assert standard_deviation(rows_ne) == pytest.approx(float(rows_ne.std(dtype=np.float64)), rel=1e-12)


def test_figures_do_not_depend_on_the_blocks_that_rows_are_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_ne = rows(50, 7)
    whole = [figure(rows_ne) for figure in (standard_deviation, mean_norm, mean_cosine)]
    monkeypatch.setattr("ragcun_cache.diagnostics.blocks.BLOCK_ROWS", 16)
    assert [figure(rows_ne) for figure in (standard_deviation, mean_norm, mean_cosine)] == pytest.approx(whole)


def test_uniformity_is_its_definition() -> None:
    rows_ne = 7 * rows(30, 6)
    units_ne = (rows_ne / np.linalg.norm(rows_ne, axis=1, keepdims=True)).astype(np.float64)
    apart_p = np.array([np.sum((a - b) ** 2) for i, a in enumerate(units_ne) for b in units_ne[:i]])
    assert uniformity(rows_ne) == pytest.approx(math.log(np.exp(-2 * apart_p).mean()), abs=1e-6)
    assert uniformity(np.ones((5, 3), np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(np.eye(6, dtype=np.float32)) == pytest.approx(-4.0, abs=1e-6)
    assert uniformity(np.zeros((4, 3), np.float32)) == 0.0


@pytest.mark.parametrize(("n", "e"), [(50, 8), (8, 50), (20, 20)])
def test_singular_values_are_numpys_from_either_side(n: int, e: int) -> None:
    rows_ne = rows(n, e, offset=2.0)
    expected = np.linalg.svd(rows_ne - rows_ne.mean(axis=0, dtype=np.float64), compute_uv=False)
    found = singular_values(rows_ne)
    np.testing.assert_allclose(found, np.where(expected > 1e-5, expected, 0), rtol=1e-6)
    # The centred rows of fewer than e + 1 are dependent: what rounding leaves of the last direction is no direction.
    assert np.count_nonzero(found) == min(n - 1, e)


def test_rows_that_differ_by_rounding_alone_have_no_rank() -> None:
    rows_ne = np.nextafter(np.full((300, 64), 0.3, np.float32), RNG.choice([0, 1], (300, 64)).astype(np.float32))
    assert len(np.unique(rows_ne)) > 1
    assert effective_rank(singular_values(rows_ne)) == 0.0
    assert effective_rank(singular_values(np.full((300, 64), 0.3, np.float32))) == 0.0


def test_singular_values_of_very_different_size() -> None:
    rows_ne = RNG.normal(size=(50, 12)) * np.geomspace(1, 1e-3, 12) + 3.0
    expected = np.linalg.svd(rows_ne - rows_ne.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(singular_values(rows_ne), expected, rtol=1e-6)


def test_effective_rank_of_few_directions() -> None:
    assert effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert effective_rank(np.zeros(4)) == 0.0
    assert effective_rank(singular_values(rows(400, 64, rank=5))) == pytest.approx(5, rel=0.1)
    assert effective_rank(singular_values(rows(400, 64, rank=5))) <= 5
    assert effective_rank(singular_values(rows(4000, 16))) == pytest.approx(16, rel=0.01)


def test_iso_score_is_what_its_steps_give() -> None:
    rows_ne = rows(100, 12) * np.linspace(0.2, 3, 12, dtype=np.float32)
    d = 12
    variance_d = np.linalg.eigvalsh(np.cov(rows_ne.T.astype(np.float64)))
    scaled_d = math.sqrt(d) * variance_d / np.linalg.norm(variance_d)
    defect = np.linalg.norm(scaled_d - 1) / math.sqrt(2 * (d - math.sqrt(d)))
    share = (d - defect**2 * (d - math.sqrt(d))) ** 2 / d**2
    assert iso_score(singular_values(rows_ne), d) == pytest.approx((d * share - 1) / (d - 1), rel=1e-6)


def test_iso_score_from_one_direction_to_all() -> None:
    assert iso_score(np.array([3.0, 0.0, 0.0]), 3) == pytest.approx(0.0)
    assert iso_score(np.array([2.0, 2.0, 2.0]), 3) == pytest.approx(1.0)
    assert iso_score(np.array([2.0, 2.0]), 3) == pytest.approx(0.5)
    assert iso_score(np.zeros(3), 3) is None
    assert iso_score(np.ones(1), 1) is None


def test_sigreg_statistic_asks_for_the_shape_alone() -> None:
    values = [sigreg_statistic(rows(300, 128)) for _ in range(20)]
    null = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3)) - math.sqrt(2 * math.pi / 3) / 3
    assert np.mean(values) == pytest.approx(null, abs=0.02)
    gauss_ne = rows(1000, 32)
    assert sigreg_statistic(0.017 * gauss_ne + 5) == pytest.approx(sigreg_statistic(gauss_ne), abs=1e-3)
    # One number in each row and 0 elsewhere: far from Gaussian in every direction.
    assert sigreg_statistic(np.eye(32, dtype=np.float32)[RNG.integers(0, 32, 1000)] * gauss_ne) > 10 * null
    assert sigreg_statistic(np.full((100, 32), 0.3, np.float32)) == pytest.approx(41, rel=0.02)
