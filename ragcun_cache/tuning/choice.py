"""Choosing among systems by their scores on dev queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.tuning.spec import Spec

_ENOUGH_UNSEEN = 30
# Differences below so many standard errors are taken for chance.
_STANDARD_ERRORS = 2.0
# The chance that a system is used though none of all that were tried is better than raw.
_FALSE_CHOICE = 0.01
_SIGN_DRAWS = 1999


@dataclass(frozen=True)
class Trial:
    """A system and its NDCG@10 for each dev query, (q,)."""

    spec: Spec
    ndcg_q: NDArray[np.float64]


@dataclass(frozen=True)
class Dev:
    """Which collection each dev query is of, (q,) from 0, and whether its relevant passages are new, (q,)."""

    collection_q: NDArray[np.int64]
    unseen_q: NDArray[np.bool_]

    def mean(self, value_q: NDArray[np.float64]) -> float:
        """Return the mean over collections of the means over their queries."""
        return float(np.mean([one_q.mean() for one_q in self._by_collection(value_q)]))

    def standard_error(self, value_q: NDArray[np.float64]) -> float:
        """Return the standard error of ``mean``, collections being fixed and queries drawn."""
        variances = [one_q.var(ddof=1) / len(one_q) for one_q in self._by_collection(value_q) if len(one_q) > 1]
        return float(np.sqrt(np.sum(variances)) / (self.collection_q.max() + 1))

    @property
    def both_kinds(self) -> bool:
        """Whether there are enough queries with new passages to go by, and others beside them."""
        return bool(self.unseen_q.sum() >= _ENOUGH_UNSEEN) and not bool(self.unseen_q.all())

    def unseen_mean(self, value_q: NDArray[np.float64]) -> float:
        """Return the mean over the queries whose relevant passages are new."""
        return float(value_q[self.unseen_q].mean())

    def weighted(self, value_q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values, (q,), so weighted that their sum is ``mean``."""
        size_c = np.bincount(self.collection_q)
        weighted_q: NDArray[np.float64] = value_q / (size_c[self.collection_q] * len(size_c))
        return weighted_q

    def _by_collection(self, value_q: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [value_q[self.collection_q == collection] for collection in range(self.collection_q.max() + 1)]


def choose(trials: Sequence[Trial], dev: Dev) -> Trial:
    """Return the trial to use; the first one is the raw encoder.

    The best, and all that are within two standard errors of it (of the paired difference), count as equally good. Of
    these, the one that is best for queries whose relevant passages were never seen in training: what others gain beyond
    that, they gain by knowing the answers. Where there are not both kinds of queries, one with the fewest parts, and of
    those the best. In the manner of the one-standard-error rule of Breiman et al., Classification and Regression Trees,
    1984, section 3.4.3. Raw stays unless ``chance_of`` the one chosen is at most 0.01.
    """
    raw = trials[0]
    best = max(trials, key=lambda trial: dev.mean(trial.ndcg_q))
    equals = [trial for trial in trials if not _better(best, trial, dev)]
    if dev.both_kinds:
        best = max(equals, key=lambda trial: (dev.unseen_mean(trial.ndcg_q), dev.mean(trial.ndcg_q)))
    else:
        best = max(equals, key=lambda trial: (-trial.spec.parts, dev.mean(trial.ndcg_q)))
    return best if chance_of(best, trials, dev) <= _FALSE_CHOICE else raw


def chance_of(chosen: Trial, trials: Sequence[Trial], dev: Dev) -> float:
    """Return the chance that the best of all ``trials`` is as far above raw, the first, as ``chosen`` is, by luck.

    A paired randomisation test whose statistic is the largest of all trials: the mean difference to raw over its root
    mean square. If nothing is better than raw, a query's differences, those of all trials at once, are as likely to
    have the opposite sign; many draws of signs say how large the largest is then. What looks best of a thousand thus
    needs more than what looks best of ten. Source: the single-step maxT of Westfall and Young, Resampling-Based
    Multiple Testing, 1993, section 2.5.
    """
    raw = trials[0]

    def scaled(trial: Trial) -> NDArray[np.float64]:
        weighted_q = dev.weighted(trial.ndcg_q - raw.ndcg_q)
        scaled_q: NDArray[np.float64] = weighted_q / (np.linalg.norm(weighted_q) or 1.0)
        return scaled_q

    observed = scaled(chosen).sum()
    signs_sq = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), size=(_SIGN_DRAWS, len(raw.ndcg_q)))
    largest_s = (signs_sq @ np.array([scaled(trial) for trial in trials]).T).max(axis=1)
    # Equal sums differ by rounding.
    return float((1 + (largest_s >= observed - 1e-9).sum()) / (1 + _SIGN_DRAWS))


def _better(one: Trial, other: Trial, dev: Dev) -> bool:
    """Return whether ``one`` is above ``other`` by more than chance."""
    difference_q = one.ndcg_q - other.ndcg_q
    return dev.mean(difference_q) > _STANDARD_ERRORS * dev.standard_error(difference_q)
