from __future__ import annotations

import numpy as np
import pytest

from reproduction.verdict import judge, seeds_below, spread

OURS = {
    "a": np.array([0.60, 0.62, 0.64]),  # 0.62 ± 0.02
    "b": np.array([0.300, 0.301, 0.302]),  # 0.301 ± 0.001
    "mean": np.array([0.450, 0.4605, 0.471]),
}


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ({"a": 0.62, "b": 0.301, "mean": 0.4605}, "OK"),
        ({"a": 0.6599, "b": 0.3029, "mean": 0.46}, "OK"),
        ({"a": 0.5801, "b": 0.2991, "mean": 0.46}, "OK"),
        # One figure is outside, though by little.
        ({"a": 0.62, "b": 0.304, "mean": 0.46}, "close"),
        ({"a": 0.62, "b": 0.3105, "mean": 0.46}, "close"),
        # Within 2 sd on one, too far off on another.
        ({"a": 0.62, "b": 0.3115, "mean": 0.46}, "differs"),
        # Outside 2 sd on one; on another within, but further than 0.01.
        ({"a": 0.65, "b": 0.304, "mean": 0.46}, "differs"),
        ({"a": 0.70, "b": 0.301, "mean": 0.46}, "differs"),
        ({"mean": 0.4605}, "OK"),
        ({"mean": 0.6}, "differs"),
    ],
)
def test_every_published_figure_has_to_lie_within(published: dict[str, float], expected: str) -> None:
    assert judge(published, OURS) == expected


def test_one_seed_has_no_spread_so_it_is_never_ok() -> None:
    one = {"a": np.array([0.62])}
    assert judge({"a": 0.62}, one) == "close"
    assert judge({"a": 0.631}, one) == "differs"


def test_no_seed_is_missing() -> None:
    assert judge({"a": 0.62}, {"a": np.empty(0)}) == "missing"


def test_what_has_no_seed_must_agree_to_three_digits() -> None:
    one = {"a": np.array([0.6556])}
    assert judge({"a": 0.6557}, one, seeded=False) == "OK"
    assert judge({"a": 0.6570}, one, seeded=False) == "close"
    assert judge({"a": 0.6690}, one, seeded=False) == "differs"


def test_seeds_that_all_agree_leave_no_room() -> None:
    same = {"a": np.array([0.5, 0.5])}
    assert judge({"a": 0.5}, same) == "OK"
    assert judge({"a": 0.501}, same) == "close"


@pytest.mark.parametrize(("published", "expected"), [(0.5, 0.0), (0.60, 0.5), (0.61, 1.0), (0.63, 2.0), (0.7, 3.0)])
def test_how_many_seeds_lie_below(published: float, expected: float) -> None:
    assert seeds_below(published, OURS["a"]) == expected


def test_spread_of_three_one_and_none() -> None:
    found = spread(OURS["a"])
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.62), pytest.approx(0.02))
    assert spread(np.array([0.3])).sd is None
    assert spread(np.empty(0)).mean is None
