from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ragcun_cache.evaluation.significance import holm, randomisation_test
from reproduction.difference import as_one, compare_means, differences
from reproduction.rows import MEAN, RAW, Row

RNG = np.random.default_rng(0)
LOW = {"a": RNG.random((3, 40)), "b": RNG.random((3, 10))}
HIGH = {"a": LOW["a"] + 0.01, "b": LOW["b"] + RNG.normal(0.1, 0.1, (3, 10))}


def test_seeds_are_averaged_and_p_is_corrected_for_the_collections(row_of: Callable[..., Row]) -> None:
    found = differences(row_of("high", HIGH), row_of("low", LOW))
    p = holm({name: randomisation_test(HIGH[name].mean(axis=0), LOW[name].mean(axis=0)) for name in LOW})
    assert {name: one.p_holm for name, one in found.items()} == p
    assert found["a"].value == pytest.approx(0.01)


def test_seeds_that_only_one_row_has_play_no_part(row_of: Callable[..., Row]) -> None:
    more = {name: np.concatenate([scores, scores + 0.5]) for name, scores in LOW.items()}
    high = row_of("high", HIGH)
    for other in (row_of("low", LOW), row_of("more", more)):
        assert differences(high, other)["a"].value == pytest.approx(0.01)
        assert compare_means(other, high).difference == pytest.approx(-compare_means(high, other).difference)
    assert compare_means(high, row_of("more", more)) == compare_means(high, row_of("low", LOW))
    # The raw encoder has no seed, and is compared with all of them.
    raw = row_of(RAW, {name: scores[:1] for name, scores in LOW.items()})
    assert differences(row_of("more", more), raw)["a"].value == pytest.approx((more["a"] - LOW["a"][0]).mean())


def test_nothing_to_compare_with(row_of: Callable[..., Row]) -> None:
    assert differences(row_of("high", HIGH), row_of("missing", {})) == {}
    assert differences(row_of("missing", {}), row_of("low", LOW)) == {}


def test_the_mean_of_collections_of_unequal_size(row_of: Callable[..., Row]) -> None:
    row, other = row_of("high", HIGH), row_of("low", LOW)
    assert as_one(row.per_query()).mean() == pytest.approx(row.means(MEAN).mean())
    found = compare_means(row, other)
    assert found.difference == pytest.approx((HIGH["a"] - LOW["a"]).mean() / 2 + (HIGH["b"] - LOW["b"]).mean() / 2)
    assert found.difference == pytest.approx(row.means(MEAN).mean() - other.means(MEAN).mean())


def test_of_collections_of_equal_size_it_is_the_plain_test(row_of: Callable[..., Row]) -> None:
    equal = {"a": HIGH["a"][:, :10], "b": HIGH["b"]}, {"a": LOW["a"][:, :10], "b": LOW["b"]}
    plain = [np.concatenate([scores["a"].mean(axis=0), scores["b"].mean(axis=0)]) for scores in equal]
    found = compare_means(row_of("high", equal[0]), row_of("low", equal[1]))
    assert found.p_value == pytest.approx(randomisation_test(*plain))


def test_a_small_collection_does_not_drown_in_a_large_one(row_of: Callable[..., Row]) -> None:
    many, few = RNG.random((1, 400)), RNG.random((1, 20))
    found = compare_means(row_of("row", {"many": many, "few": few + 0.2}), row_of("other", {"many": many, "few": few}))
    assert found.difference == pytest.approx(0.1)
    assert found.p_value < 0.001
