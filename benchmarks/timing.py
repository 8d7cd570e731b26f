"""Seconds of several ways to do one thing, taken in turns, so that a busy moment hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROUNDS = 5


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise ``values``, of which there is at least one."""
        return cls(median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """Return the spread in another unit; ``factor`` is positive."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{_figure(self.median)} ({_figure(self.low)}–{_figure(self.high)})"


@dataclass(frozen=True)
class Timing:
    """Seconds of one way, round by round."""

    seconds: list[float]

    @property
    def spread(self) -> Spread:
        """Of the seconds."""
        return Spread.of(self.seconds)

    def over(self, peer: Timing) -> Spread:
        """Return how many times the peer's seconds this took, from the two that are of the same round each."""
        return Spread.of([own / other for own, other in zip(self.seconds, peer.seconds, strict=True)])

    def rate(self, amount: float) -> Spread:
        """Return ``amount`` per second."""
        return Spread.of([amount / seconds for seconds in self.seconds])


def take_turns(ways: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time every way once a round, after a round that is not counted: it fills the page cache and loads code."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for counted in range(-1, rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            result = way()
            elapsed = time.perf_counter() - started
            del result  # Giving back its memory is not part of what follows.
            if counted >= 0:
                seconds[name].append(elapsed)
    return {name: Timing(values) for name, values in seconds.items()}


def _figure(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 2
    size = abs(value)
    while size >= 10 and digits:
        size, digits = size / 10, digits - 1
    while size < 1:
        size, digits = size * 10, digits + 1
    return f"{value:,.{digits}f}"
