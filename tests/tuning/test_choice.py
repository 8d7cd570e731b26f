from __future__ import annotations

import numpy as np
import pytest

from ragcun_cache.evaluation.significance import randomisation_test
from ragcun_cache.tuning.choice import Dev, Trial, chance_of, choose
from ragcun_cache.tuning.spec import Fusion, Memory, Spec

RAW, HYBRID = Spec(), Spec(bm25=Fusion.CONVEX, dense_weight=0.6)
MEMORY = HYBRID.model_copy(update={"memory": Memory(temperature=0.1, evidence=10.0, weight=1.0)})
N = 200


def dev(unseen: np.ndarray | None = None) -> Dev:
    return Dev(np.zeros(N, np.int64), np.zeros(N, np.bool_) if unseen is None else unseen)


def noise(scale: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=N)


def test_what_is_clearly_better_is_chosen() -> None:
    base = np.full(N, 0.5)
    trials = [Trial(RAW, base), Trial(HYBRID, base + 0.05 + noise(0.1)), Trial(MEMORY, base + 0.2 + noise(0.1, 1))]
    assert choose(trials, dev()).spec == MEMORY


def test_of_equals_the_one_with_the_fewest_parts() -> None:
    base = np.full(N, 0.5)
    hybrid = base + 0.2 + noise(0.1)
    slightly = hybrid + 0.001 + noise(0.1, 1) - noise(0.1, 1).mean()
    assert choose([Trial(RAW, base), Trial(HYBRID, hybrid), Trial(MEMORY, slightly)], dev()).spec == HYBRID


def test_of_equals_the_one_that_is_best_for_unseen_gold() -> None:
    unseen = np.arange(N) < 60
    base = np.full(N, 0.5)
    hybrid = base + 0.2 + np.where(unseen, 0.0, 0.002)
    memory = base + 0.2 + np.where(unseen, 0.004, 0.0) + noise(0.01) - noise(0.01).mean()
    trials = [Trial(RAW, base), Trial(HYBRID, hybrid), Trial(MEMORY, memory)]
    assert choose(trials, dev(unseen)).spec == MEMORY
    assert choose(trials, dev()).spec == HYBRID


@pytest.mark.parametrize(("errors", "equal"), [(1.9, True), (2.1, False)])
def test_what_is_within_two_standard_errors_of_the_best_is_as_good(errors: float, equal: bool) -> None:
    unseen = np.arange(N) < 60
    # The best overall is so many standard errors above what is best where the relevant passages are new.
    difference = np.where(unseen, -0.1, 0.0) + noise(0.3)
    difference += errors * difference.std(ddof=1) / np.sqrt(N) - difference.mean()
    assert difference[unseen].mean() < 0
    hybrid = np.full(N, 0.9)
    trials = [Trial(RAW, np.full(N, 0.5)), Trial(HYBRID, hybrid), Trial(MEMORY, hybrid + difference)]
    assert choose(trials, dev(unseen)).spec == (HYBRID if equal else MEMORY)


@pytest.mark.parametrize(("n_unseen", "both"), [(0, False), (29, False), (30, True), (N - 1, True), (N, False)])
def test_both_kinds_of_queries_are_there_if_enough_are_unseen(n_unseen: int, both: bool) -> None:
    unseen = np.arange(N) < n_unseen
    assert dev(unseen).both_kinds == both
    if n_unseen:
        assert dev(unseen).unseen_mean(np.where(unseen, 0.25, 1.0)) == 0.25


def lucky(errors: float) -> np.ndarray:
    """Differences whose mean is so many of its standard errors."""
    difference = noise(0.3)
    return difference + errors * difference.std(ddof=1) / np.sqrt(N) - difference.mean()


@pytest.mark.parametrize(("errors", "raw"), [(2.0, True), (2.8, False)])
def test_raw_stays_unless_something_is_better_by_more_than_chance(errors: float, raw: bool) -> None:
    trials = [Trial(RAW, np.full(N, 0.5)), Trial(HYBRID, 0.5 + lucky(errors))]
    assert choose(trials, dev()).spec.is_raw == raw


def test_the_best_of_many_needs_more_than_the_best_of_two() -> None:
    base = np.full(N, 0.5)
    others = [Trial(HYBRID, base + noise(0.3, seed) - noise(0.3, seed).mean()) for seed in range(1, 400)]
    trials = [Trial(RAW, base), Trial(HYBRID, base + lucky(2.8))]
    assert not choose(trials, dev()).spec.is_raw
    assert choose([*trials, *others], dev()).spec.is_raw


def test_where_nothing_is_better_raw_stays_as_often_as_it_is_said() -> None:
    base = np.full(N, 0.5)
    found = []
    for run in range(60):
        trials = [Trial(RAW, base), *(Trial(HYBRID, base + noise(0.3, 50 * run + i)) for i in range(50))]
        found.append(chance_of(max(trials, key=lambda trial: trial.ndcg_q.mean()), trials, dev()))
    chances = np.array(found)
    # Uniform between 0 and 1, or they would not be chances: of 60, one below 0.01 is likely, four are not.
    assert (chances <= 0.01).sum() < 4
    assert 0.35 < chances.mean() < 0.65


def test_the_chance_is_that_of_one_paired_test_where_one_system_is_tried() -> None:
    base, gain = np.full(N, 0.5), lucky(1.5)
    found = chance_of(Trial(HYBRID, base + gain), [Trial(RAW, base), Trial(HYBRID, base + gain)], dev())
    assert found == pytest.approx(randomisation_test(base + gain, base, n_permutations=10_000, seed=1) / 2, abs=0.02)


def test_nothing_tried_or_nothing_gained_is_chance() -> None:
    raw = Trial(RAW, np.full(N, 0.5))
    assert chance_of(raw, [raw], dev()) == 1.0
    worse = Trial(HYBRID, raw.ndcg_q - 0.1)
    assert chance_of(worse, [raw, worse], dev()) > 0.9


def test_collections_count_alike_whatever_their_size() -> None:
    two = Dev(np.repeat([0, 1], [150, 50]), np.zeros(N, np.bool_))
    value = np.where(np.arange(N) < 150, 1.0, 0.0)
    assert two.mean(value) == pytest.approx(0.5)
    value = noise(1.0)
    expected = np.sqrt(value[:150].var(ddof=1) / 150 + value[150:].var(ddof=1) / 50) / 2
    assert two.standard_error(value) == pytest.approx(expected)
    assert two.weighted(value).sum() == pytest.approx(two.mean(value))
