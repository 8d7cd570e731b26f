"""Claims about causes, and what the runs say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ragcun_cache.evaluation.significance import Comparison, holm
from reproduction.difference import compare_means
from reproduction.plan import Cause
from reproduction.rows import MEAN, RAW, Row

ALPHA = 0.05
SAME = 0.01


@dataclass(frozen=True)
class Finding:
    """What the runs say of a cause.

    ``comparison`` is of the means of all collections, removed minus failed, with p corrected by Holm's method for all
    causes of the page; None, like ``supported``, if one of the rows has no run. ``higher_seeds`` of ``shared_seeds``
    are higher in ``removed``. ``recovered`` is a gain as a share of what ``failed`` lacks to the raw encoder, None if
    there is no gain or nothing is lacking.
    """

    cause: Cause
    comparison: Comparison | None
    supported: bool | None
    higher_seeds: int
    shared_seeds: int
    recovered: float | None


def find_out(causes: Sequence[Cause], rows: Mapping[str, Row]) -> list[Finding]:
    """Return a finding for every cause, in their order."""
    found = {
        index: compare_means(rows[cause.removed], rows[cause.failed])
        for index, cause in enumerate(causes)
        if rows[cause.removed].n and rows[cause.failed].n
    }
    corrected = holm({index: comparison.p_value for index, comparison in found.items()})
    return [
        _finding(cause, replace(found[index], p_holm=corrected[index]) if index in found else None, rows)
        for index, cause in enumerate(causes)
    ]


def is_supported(side: str, comparison: Comparison) -> bool:
    """Return whether a comparison, removed minus failed, bears a claim out.

    ``higher``: the difference is positive, with p < 0.05 after Holm's correction. ``same``: the 95 % interval lies
    within ± 0.01. That a difference is not significant does not show that there is none, and one that is significant
    may be next to none: with enough seeds and queries any is.
    """
    if side == "higher":
        return comparison.difference > 0 and comparison.p_holm < ALPHA
    low, high = comparison.interval
    return low >= -SAME and high <= SAME


def verdict_sentence(finding: Finding) -> str:
    """Return the verdict on a cause and the reason for it, for each way that it can come out."""
    cause, comparison = finding.cause, finding.comparison
    if comparison is None:
        return "**Open**: a run is missing."
    moved = "higher" if comparison.difference > 0 else "lower" if comparison.difference < 0 else "the same"
    if cause.side == "higher":
        if finding.supported:
            return f"**Supported**: `{cause.removed}` is {moved}, by more than the chance of the queries allows."
        if comparison.difference > 0:
            return f"**Not supported**: `{cause.removed}` is {moved}, but the chance of the queries may do as much."
        return f"**Not supported**: `{cause.removed}` is {moved}, and the claim says higher."
    seen = comparison.p_value < ALPHA
    if finding.supported:
        first = f"`{cause.removed}` is {moved}, but by next to nothing: a" if seen else "no difference is to be seen; a"
        return f"**Supported**: {first} difference of more than {SAME} can be excluded."
    if seen:
        return f"**Not supported**: `{cause.removed}` is {moved}, and the claim says the same."
    return f"**Not supported**: no difference is significant, but one of more than {SAME} cannot be excluded."


def _finding(cause: Cause, comparison: Comparison | None, rows: Mapping[str, Row]) -> Finding:
    removed, failed = rows[cause.removed], rows[cause.failed]
    shared = removed.shared_seeds(failed)
    ours, theirs = (dict(zip(row.runs, row.means(MEAN), strict=True)) for row in (removed, failed))
    return Finding(
        cause,
        comparison,
        None if comparison is None else is_supported(cause.side, comparison),
        sum(ours[seed] > theirs[seed] for seed in shared),
        len(shared),
        None if comparison is None else _recovered(comparison.difference, failed, rows.get(RAW)),
    )


def _recovered(difference: float, failed: Row, raw: Row | None) -> float | None:
    lacking = float(raw.means(MEAN).mean() - failed.means(MEAN).mean()) if raw and raw.n else 0.0
    return difference / lacking if lacking > 0 and difference > 0 else None
