"""Is one row better than another? Paired per query, each row's scores averaged over the seeds that both have.

A head's weights at the start are its seed's luck, and an untrained head is nothing else: rows of other seeds would
differ by that luck alone. Rows that share no seed are averaged over all of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.evaluation.significance import Comparison, compare, holm, randomisation_test
from reproduction.rows import Row


@dataclass(frozen=True)
class Difference:
    """Difference of means on one collection, and p of the randomisation test by Holm's method for the collections."""

    value: float
    p_holm: float


def differences(row: Row, other: Row) -> dict[str, Difference]:
    """Return ``row`` minus ``other`` by collection, as the leaderboard compares rows; none if one has no run."""
    own, base = _per_query(row, other)
    p_values = {name: randomisation_test(own[name], base[name]) for name in own if name in base}
    corrected = holm(p_values)
    return {name: Difference(float((own[name] - base[name]).mean()), p) for name, p in corrected.items()}


def compare_means(row: Row, other: Row) -> Comparison:
    """Compare the means of all collections of two rows that both have runs: ``row`` minus ``other``."""
    own, base = _per_query(row, other)
    return compare(as_one(own), as_one(base))


def _per_query(row: Row, other: Row) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    seeds = row.shared_seeds(other)
    return row.per_query(seeds), other.per_query(seeds)


def as_one(scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the scores of all collections, (q,) each, as one array whose mean is the mean of the collections' means.

    A query of a collection with q of all Q queries, one of C, gets the weight Q / (C q). Weights are the same for both
    sides of a comparison, and under the null hypothesis a weighted difference is as likely to be its negative, so the
    randomisation test holds for the weighted sum as for the plain one.
    """
    total = sum(len(scores_q) for scores_q in scores.values())
    return np.concatenate([scores_q * (total / (len(scores) * len(scores_q))) for scores_q in scores.values()])
