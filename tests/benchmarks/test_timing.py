from __future__ import annotations

import pytest

from benchmarks.timing import Spread, Timing, take_turns


def test_ways_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    timings = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_a_ratio_compares_what_was_measured_in_the_same_round() -> None:
    # A slow second round slows both: the ratio does not feel it.
    own, peer = Timing([2.0, 20.0, 2.0]), Timing([1.0, 10.0, 1.0])
    assert own.over(peer) == Spread(2.0, 2.0, 2.0)


def test_a_rate_is_highest_where_the_seconds_are_lowest() -> None:
    assert Timing([1.0, 2.0, 4.0]).rate(8.0) == Spread(4.0, 2.0, 8.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.004567, "0.00457"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1e4, "10,000"),
    ],
)
def test_a_figure_has_three_significant_digits(value: float, text: str) -> None:
    assert str(Spread(value, value, value)) == f"{text} ({text}–{text})"
