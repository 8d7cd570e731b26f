from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.significance import bootstrap_interval, compare, holm, randomisation_test


def scipy_p_value(a: NDArray[np.float64], b: NDArray[np.float64], n_resamples: float) -> float:
    result = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        rng=np.random.default_rng(1),
    )
    return float(result.pvalue)


# Sums of these are exact: scipy's tolerance for equal sums fails where the observed one is zero but for rounding.
few_values = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(pairs=st.lists(st.tuples(few_values, few_values), min_size=2, max_size=11))
@settings(max_examples=60)
def test_exact_p_value_is_scipys(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    if (a == b).all():
        assert randomisation_test(a, b) == 1.0
    else:
        assert randomisation_test(a, b) == pytest.approx(scipy_p_value(a, b, np.inf), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.06])
def test_drawn_p_value_is_near_scipys(shift: float) -> None:
    rng = np.random.default_rng(5)
    a = rng.uniform(size=300)
    b = np.clip(a + rng.normal(-shift, 0.3, size=300), 0, 1)
    assert randomisation_test(a, b) == pytest.approx(scipy_p_value(a, b, 20_000), abs=0.015)


def test_false_alarms_come_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(6)
    p_values = [randomisation_test(rng.normal(size=40), rng.normal(size=40), n_permutations=500) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_a_clear_difference_is_never_called_impossible() -> None:
    a = np.linspace(0.5, 1.0, 200)
    assert randomisation_test(a, a - 0.4, n_permutations=999) == 1 / 1000


def test_the_same_input_gives_the_same_p_value_in_either_direction() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.uniform(size=(2, 100))
    assert randomisation_test(a, b) == randomisation_test(a, b) == randomisation_test(b, a)


def test_queries_that_tie_do_not_matter() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.uniform(size=(2, 9))
    same = rng.uniform(size=200)
    assert randomisation_test(np.append(a, same), np.append(b, same)) == randomisation_test(a, b)


def test_wins_ties_and_losses() -> None:
    found = compare(np.array([1.0, 0.5, 0.5, 0.0]), np.array([0.5, 0.5, 0.25, 1.0]))
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.difference == pytest.approx(-0.0625)


@pytest.mark.parametrize("queries", [8, 300])
@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_the_interval_is_scipys_bootstrap(queries: int, shift: float) -> None:
    rng = np.random.default_rng(9)
    difference = rng.choice([0.0, 0.0, 0.1, -0.4, 0.37, -1.0, 1.0], queries) + shift
    found = bootstrap_interval(difference, n_resamples=40_000)
    reference = stats.bootstrap(
        (difference,), np.mean, method="percentile", n_resamples=40_000, rng=np.random.default_rng(1), batch=2000
    ).confidence_interval
    width = reference.high - reference.low
    assert found == pytest.approx((reference.low, reference.high), abs=0.03 * width)
    assert found == bootstrap_interval(difference, n_resamples=40_000)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(10)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.exponential(size=60) - 1.0, n_resamples=400, seed=int(rng.integers(1 << 30)))
        covered += low <= 0.0 <= high
    assert 0.88 < covered / 300 < 0.99


def test_queries_that_all_differ_alike_have_an_interval_of_no_width() -> None:
    assert bootstrap_interval(np.full(50, 0.25)) == (0.25, 0.25)


def test_holm_is_the_step_down_method() -> None:
    # Worked by hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the one before, 0.9 x 1.
    assert holm({"d": 0.9, "b": 0.02, "a": 0.01, "c": 0.03}) == pytest.approx(
        {"d": 0.9, "b": 0.06, "a": 0.04, "c": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.3}) == {"a": 0.3}
    assert holm({}) == {}


@given(p_values=st.lists(st.floats(0, 1), max_size=8), level=st.floats(0.001, 0.2))
def test_holm_rejects_what_the_closed_test_rejects(p_values: list[float], level: float) -> None:
    # Holm is closed testing by Bonferroni: reject i if every set with i in it has a member p <= level / size.
    sets = [one for n in range(1, len(p_values) + 1) for one in combinations(range(len(p_values)), n)]
    rejected_sets = {one: min(p_values[i] for i in one) * len(one) <= level for one in sets}
    corrected = holm(dict(enumerate(p_values)))
    for i in range(len(p_values)):
        assert (corrected[i] <= level) == all(rejected for one, rejected in rejected_sets.items() if i in one)


def test_scores_of_other_queries_are_refused() -> None:
    with pytest.raises(EvaluationError, match="same queries"):
        randomisation_test(np.zeros(3), np.zeros(4))
    with pytest.raises(EvaluationError, match="same queries"):
        randomisation_test(np.zeros(0), np.zeros(0))
