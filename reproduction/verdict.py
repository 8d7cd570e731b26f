"""Does a published figure look like one more seed of ours?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["OK", "close", "differs", "missing"]

WITHIN_SD = 2.0
CLOSE = 0.01
EXACT = 0.001


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over ``n`` seeds; sd is None for fewer than two, mean for none."""

    n: int
    mean: float | None
    sd: float | None


def spread(values_s: NDArray[np.float64]) -> Spread:
    """Summarise the figures of the seeds, (s,)."""
    n = len(values_s)
    return Spread(n, float(values_s.mean()) if n else None, float(values_s.std(ddof=1)) if n > 1 else None)


def judge(published: Mapping[str, float], ours: Mapping[str, NDArray[np.float64]], *, seeded: bool = True) -> Verdict:
    """Return the verdict on a published row.

    ``OK``: every published figure lies within our mean ± 2 sd over seeds (on each collection and on their mean), or,
    where there is no seed to draw, within 0.001. ``close``: not that, but all lie within 0.01 of our mean. ``differs``:
    one lies further off. ``missing``: no seed is done. One seed has no sd, so its verdict is never ``OK``.

    Args:
        published: NDCG@10 by collection, ``mean`` among them.
        ours: (s,) figures of the seeds, by the same names.
        seeded: whether the row depends on a seed; the raw encoder does not.

    """
    spreads = {name: spread(ours[name]) for name in published}
    off, tolerance = {}, {}
    for name, found in spreads.items():
        if found.mean is None:
            return "missing"
        off[name] = abs(published[name] - found.mean)
        tolerance[name] = EXACT if not seeded else 0.0 if found.sd is None else WITHIN_SD * found.sd
    known = all(found.sd is not None for found in spreads.values()) or not seeded
    if known and all(off[name] <= tolerance[name] for name in off):
        return "OK"
    return "close" if all(distance <= CLOSE for distance in off.values()) else "differs"


def seeds_below(published: float, values_s: NDArray[np.float64]) -> float:
    """Return how many of the seeds' figures, (s,), lie below the published one; an equal one counts half."""
    return float((values_s < published).sum() + 0.5 * (values_s == published).sum())
