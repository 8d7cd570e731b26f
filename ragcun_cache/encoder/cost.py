"""What a forward pass costs by the shape of its batch, from batches that were timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragcun_cache.encoder.batches import Batch, plan_batches

# No machine keeps its speed to less than this.
_LEAST_ERROR = 0.05


@dataclass(frozen=True)
class TimedBatch:
    """Rows of one batch, the tokens that each was padded to, and the seconds that the forward pass took."""

    rows: int
    length: int
    seconds: float


@dataclass(frozen=True)
class CostModel:
    """Seconds of a batch = c₀ + rows · length · (c₁ + c₂ · length): the call, the linear layers, and attention.

    Attributes:
        coefficients: c₀, c₁, c₂, none below 0.
        error: relative, of the sum over many batches: twice its standard error, and the drift while it was measured.
    """

    coefficients: tuple[float, float, float]
    error: float

    @classmethod
    def fit(cls, timed: Sequence[TimedBatch]) -> CostModel:
        """Fit batches in the order in which they were timed, so that the sum over them is exact."""
        seconds = np.array([one.seconds for one in timed])
        features = _features([one.rows for one in timed], [one.length for one in timed])
        coefficients = _not_negative(features / np.sqrt(seconds)[:, None], np.sqrt(seconds))
        coefficients *= seconds.sum() / (features @ coefficients).sum()
        predicted = features @ coefficients
        spread = float(np.sqrt(((seconds - predicted) ** 2).sum()) / seconds.sum())
        half = max(len(timed) // 2, 1)
        early, late = (float(seconds[part].sum() / predicted[part].sum()) for part in (slice(half), slice(-half, None)))
        error = max(2 * spread + abs(early - late) / 2, _LEAST_ERROR)
        first, second, third = coefficients.tolist()
        return cls((first, second, third), error)

    def seconds(self, rows: ArrayLike, length: ArrayLike) -> NDArray[np.float64]:
        """Return the seconds of batches of these numbers of rows and padded lengths."""
        predicted: NDArray[np.float64] = _features(rows, length) @ np.array(self.coefficients)
        return predicted


def _features(rows: ArrayLike, length: ArrayLike) -> NDArray[np.float64]:
    rows_n, length_n = np.asarray(rows, np.float64), np.asarray(length, np.float64)
    return np.stack([np.ones_like(rows_n), rows_n * length_n, rows_n * length_n**2], axis=1)


def _not_negative(features: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares coefficients, those left out that would be negative."""
    kept = list(range(features.shape[1]))
    while True:
        found = np.linalg.lstsq(features[:, kept], target, rcond=None)[0]
        if (found >= 0).all() or len(kept) == 1:
            coefficients = np.zeros(features.shape[1])
            coefficients[kept] = np.abs(found)
            return coefficients
        kept.pop(int(np.argmin(found)))


@dataclass(frozen=True)
class Simulation:
    """What many rows would cost: seconds of the forward pass, tokens with padding, and the error of the draw alone."""

    seconds: float
    padded_tokens: int
    error: float


def simulate(
    cost: CostModel, n_tokens: NDArray[np.int32], rows: int, shard_rows: int, batch_tokens: int, limit: int
) -> Simulation:
    """Return what ``rows`` rows cost, whose lengths are distributed as those of a sample.

    Args:
        cost: of one batch.
        n_tokens: (sample,) tokens of rows in random order.
        rows: how many there are in all.
        shard_rows: rows that are batched together.
        batch_tokens: the budget of a batch.
        limit: the most tokens that a row has.
    """
    if not rows:
        return Simulation(0.0, 0, 0.0)
    batches = planned_batches(n_tokens, rows, shard_rows, batch_tokens, limit)
    sizes = np.array([(len(batch.rows), batch.length) for batch in batches], np.int64)
    scale = rows / sizes[:, 0].sum()
    tokens = n_tokens.astype(np.float64)
    unseen = max(1.0 - len(tokens) / rows, 0.0)
    error = 2 * float(tokens.std() / tokens.mean()) * np.sqrt(unseen / len(tokens))
    return Simulation(
        seconds=float(cost.seconds(sizes[:, 0], sizes[:, 1]).sum()) * scale,
        padded_tokens=round(float(sizes.prod(axis=1).sum()) * scale),
        error=float(error),
    )


def planned_batches(
    n_tokens: NDArray[np.int32], rows: int, shard_rows: int, batch_tokens: int, limit: int
) -> list[Batch]:
    """Return the batches that an encode of ``rows`` rows makes, or at least a shard of it, the longest first.

    The rows of the sample are taken again and again where a shard has more: with fewer, its batches would not be full.
    """
    tiled_n = np.resize(n_tokens, min(rows, max(len(n_tokens), shard_rows)))
    batches = [
        Batch([(start + row) % len(n_tokens) for row in batch.rows], batch.length)
        for start in range(0, len(tiled_n), shard_rows)
        for batch in plan_batches(tiled_n[start : start + shard_rows].tolist(), batch_tokens, limit)
    ]
    return sorted(batches, key=lambda batch: batch.length, reverse=True)


def drawn_batches(batches: Sequence[Batch], rows: float, least: float) -> list[Batch]:
    """Return some of the batches, evenly over all lengths: of about ``rows`` rows, but at least ``least`` batches."""
    wanted = len(batches) * rows / sum(len(batch.rows) for batch in batches)
    count = min(len(batches), math.ceil(max(wanted, least, 1)))
    return [batches[int((place + 0.5) * len(batches) / count)] for place in range(count)]
