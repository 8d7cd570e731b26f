"""Is one row better than another? Paired per query, each row's scores averaged over its seeds."""

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
    own, base = row.per_query(), other.per_query()
    p_values = {name: randomisation_test(own[name], base[name]) for name in own if name in base}
    corrected = holm(p_values)
    return {name: Difference(float((own[name] - base[name]).mean()), p) for name, p in corrected.items()}


def compare_means(row: Row, other: Row) -> Comparison:
    """Compare the means of all collections of two rows that both have runs: ``row`` minus ``other``."""
    return compare(as_one(row.per_query()), as_one(other.per_query()))


def as_one(scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the scores of all collections, (q,) each, as one array whose mean is the mean of the collections' means.

    A query of a collection with q of all Q queries, one of C, gets the weight Q / (C q). Weights are the same for both
    sides of a comparison, and under the null hypothesis a weighted difference is as likely to be its negative, so the
    randomisation test holds for the weighted sum as for the plain one.
    """
    total = sum(len(scores_q) for scores_q in scores.values())
    return np.concatenate([scores_q * (total / (len(scores) * len(scores_q))) for scores_q in scores.values()])
