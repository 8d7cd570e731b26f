"""The section of causes: each claim with the figures that bear it out or do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ragcun_cache.evaluation.significance import Comparison, p_text
from ragcun_cache.markdown import escape, paragraphs, table
from reproduction.causes import ALPHA, SAME, Finding, verdict_sentence
from reproduction.cells import (
    AGAIN,
    TITLES,
    alarms,
    cell,
    diagnostic_columns,
    difference,
    figure,
    seeds_in_words,
)
from reproduction.difference import Difference, differences
from reproduction.rows import MEAN, Row

# The diagnostics that a cause is read off; the table of all rows has the others.
_TELLING = (
    "dev_ndcg@10", "output_std", "output_std_ratio", "effective_rank", "mean_cosine", "in_batch_accuracy",
    "residual_mean", "residual_alpha",
)  # fmt: skip


def causes_section(findings: Sequence[Finding], rows: Mapping[str, Row], titles: Mapping[str, str]) -> Iterator[str]:
    """Yield the blocks of the section, none without a claim; ``titles`` are those of the collections."""
    if findings:
        yield "## What causes it"
        yield (
            "For each claim, the row that fails and the run in which the cause is removed, by their means over the "
            "collections and over the seeds that both have. A claim that the run is higher needs "
            f"p < {ALPHA:g}, corrected by Holm's method for the claims on this page; one that it is the same needs a "
            f"95 % interval of the difference within ± {SAME:g}. p and intervals are of the choice of queries, not of "
            "seeds: how many of those agree is said beside. Claims were put and worded while results came in, some "
            "after those of the first seeds were seen: take the tests as descriptions, not as registered in advance."
        )
    for finding in findings:
        yield _finding(finding, rows, titles)


def _finding(finding: Finding, rows: Mapping[str, Row], titles: Mapping[str, str]) -> str:
    cause, comparison = finding.cause, finding.comparison
    failed, removed = rows[cause.failed], rows[cause.removed]
    says = {"higher": "scores higher", "same": "does not differ"}[cause.side]
    parts = [
        f"### {escape(cause.row)}: {escape(cause.claim)}",
        f"If so, `{cause.removed}` {says}. {_mean_sentence(failed)} {_mean_sentence(removed)}",
    ]
    if comparison is not None:
        parts[-1] += " " + _difference_sentence(finding, comparison, differences(removed, failed), titles)
    parts.append(verdict_sentence(finding))
    if failed.n and removed.n:
        parts.append(_side_by_side(failed, removed))
    return paragraphs(*parts)


def _mean_sentence(row: Row) -> str:
    if not row.n:
        return f"`{row.label}` is {AGAIN}."
    return f"`{row.label}` has {cell(row, MEAN)} over {seeds_in_words(row)}."


def _difference_sentence(
    finding: Finding, comparison: Comparison, single: Mapping[str, Difference], titles: Mapping[str, str]
) -> str:
    low, high = comparison.interval
    each = "; ".join(f"{titles.get(name, name)} {difference(one)}" for name, one in single.items())
    sentence = (
        f"The difference is {comparison.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, "
        f"{p_text(comparison.p_value)}, corrected {p_text(comparison.p_holm)}; {each}); "
        f"{finding.higher_seeds} of {finding.shared_seeds} seeds that both have are higher."
    )
    if finding.recovered is not None:
        sentence += f" It is {finding.recovered:.0%} of what `{finding.cause.failed}` lacks to the raw encoder."
    return sentence


def _side_by_side(failed: Row, removed: Row) -> str:
    names = [name for name in diagnostic_columns([failed, removed]) if name in _TELLING]
    lines = [[TITLES.get(name, name), figure(failed, name), figure(removed, name)] for name in names]
    lines.append(["alarms", alarms(failed), alarms(removed)])
    return table(["at the epoch that is kept", f"`{failed.label}`", f"`{removed.label}`"], lines)
