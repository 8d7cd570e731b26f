"""Is one head better than another on these queries, or lucky? Paired, per query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError

_Key = TypeVar("_Key")

_BLOCK = 1024
# Numbers that are drawn at a time.
_DRAWN = 1 << 22
CONFIDENCE = 0.95
# Sums of the same numbers with other signs differ by rounding; equal ones must count as equal.
_RELATIVE_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """Mean difference to a baseline, how sure it is, and on how many queries it wins, ties and loses.

    ``p_value`` is two-sided and for this comparison alone; ``p_holm`` is corrected for the collections that the same
    two systems were compared on. ``interval`` has the ends of a 95 % bootstrap interval of the difference.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    wins: int
    ties: int
    losses: int


def compare(
    scores_q: NDArray[np.float64],
    baseline_q: NDArray[np.float64],
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare per-query scores, both (q,) and in the same query order.

    The p-value is that of ``randomisation_test``, the interval that of ``bootstrap_interval``, each with
    ``n_permutations`` draws; ``p_holm`` is the p-value itself, as of a single comparison.

    Raises:
        EvaluationError: as ``randomisation_test``.

    """
    p_value = randomisation_test(scores_q, baseline_q, n_permutations=n_permutations, seed=seed)
    difference_q = scores_q - baseline_q
    ties = np.abs(difference_q) <= _RELATIVE_ROUNDING
    return Comparison(
        difference=float(difference_q.mean()),
        interval=bootstrap_interval(difference_q, n_resamples=n_permutations, seed=seed),
        p_value=p_value,
        p_holm=p_value,
        wins=int(((difference_q > 0) & ~ties).sum()),
        ties=int(ties.sum()),
        losses=int(((difference_q < 0) & ~ties).sum()),
    )


def p_text(p_value: float) -> str:
    """Return a p-value as it is written everywhere: ``p=0.012``, and ``p<0.001`` below that."""
    return f"p={p_value:.3f}" if p_value >= 0.001 else "p<0.001"


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return the p-values corrected for their number by Holm's step-down method (Scand. J. Statist. 6, 1979).

    The i-th smallest of m (from 0) is multiplied by m - i, is never below the one before it, and at most 1. Rejecting
    what is at most alpha keeps the chance of any false rejection at alpha, whatever the tests have in common.
    """
    corrected, largest = dict(p_values), 0.0
    for i, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - i) * p_values[key]))
        corrected[key] = largest
    return corrected


def bootstrap_interval(
    difference_q: NDArray[np.float64], *, n_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the 95 % percentile bootstrap interval of the mean of ``difference_q``, (q,).

    Queries are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 13.3). The same input
    gives the same interval.
    """
    rng, q = np.random.default_rng(seed), len(difference_q)
    mean_s, rows = np.empty(n_resamples), max(1, _DRAWN // q)
    for first in range(0, n_resamples, rows):
        drawn_sq = rng.integers(0, q, (min(rows, n_resamples - first), q), dtype=np.int32)
        mean_s[first : first + len(drawn_sq)] = difference_q[drawn_sq].mean(axis=1)
    low, high = np.quantile(mean_s, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def randomisation_test(
    scores_q: NDArray[np.float64],
    baseline_q: NDArray[np.float64],
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of Fisher's paired randomisation test of the mean difference.

    Under the null hypothesis each query's difference d_i could as well have been -d_i (Smucker, Allan and Carterette,
    CIKM 2007). The p-value is the share of sign assignments whose |sum| is at least the observed one: of all 2^m of
    them if that is at most ``n_permutations`` (m: queries that differ; the others change nothing), otherwise of
    ``n_permutations`` random ones and the observed one, (1 + hits) / (1 + n_permutations), which is never 0.

    Args:
        scores_q: (q,) scores of one system.
        baseline_q: (q,) scores of the other on the same queries.
        n_permutations: sign assignments to draw.
        seed: of the draw; the same input gives the same p-value.

    Raises:
        EvaluationError: the two do not belong to the same queries, or are empty.

    """
    if scores_q.shape != baseline_q.shape or scores_q.ndim != 1 or not scores_q.size:
        raise EvaluationError(
            "a paired test needs the scores of the same queries", expected=baseline_q.shape, found=scores_q.shape
        )
    difference_q = scores_q - baseline_q
    difference_m = difference_q[np.abs(difference_q) > _RELATIVE_ROUNDING]
    m = len(difference_m)
    if m == 0:
        return 1.0
    threshold = abs(difference_m.sum()) - _RELATIVE_ROUNDING * np.abs(difference_m).sum()
    if m < 63 and 2**m <= n_permutations:
        negative_sm = (np.arange(2**m)[:, None] >> np.arange(m)) & 1
        return _hits(negative_sm, difference_m, threshold) / len(negative_sm)
    rng = np.random.default_rng(seed)
    hits = 0
    for first in range(0, n_permutations, _BLOCK):
        negative_sm = rng.integers(0, 2, (min(_BLOCK, n_permutations - first), m), dtype=np.int8)
        hits += _hits(negative_sm, difference_m, threshold)
    return (1 + hits) / (1 + n_permutations)


def _hits(negative_sm: NDArray[np.integer], difference_m: NDArray[np.float64], threshold: float) -> int:
    """Count the sign assignments, (s, m) with 1 for minus, whose |sum| reaches the threshold."""
    sum_s = (1.0 - 2.0 * negative_sm) @ difference_m
    return int((np.abs(sum_s) >= threshold).sum())
