"""The table of published figures beside ours, and its verdicts."""

from __future__ import annotations

from collections.abc import Mapping

from ragcun_cache.markdown import escape, table
from reproduction import verdict
from reproduction.causes import ALPHA
from reproduction.cells import ABSENT, cell, seeds
from reproduction.difference import compare_means
from reproduction.plan import Plan, ShownRow
from reproduction.rows import MEAN, RAW, Row
from reproduction.verdict import Verdict, judge, seeds_below


def published_table(plan: Plan, rows: Mapping[str, Row]) -> str:
    """Return the table: a line with each published row, below it a line for every run that stands for it."""
    columns = {**plan.published.collections, MEAN: "mean"}
    lines = []
    for shown in plan.rows:
        published = plan.published_row(shown.published)
        figures = published.figures
        cells = [f"{figures[name]:.4f}" if name in figures else ABSENT for name in columns]
        lines.append([f"**{escape(shown.published)}**", "published", ABSENT, *cells, ABSENT])
        for how, run in shown.runs.items():
            row = rows.get(run)
            ours = [_cell_beside(row, name, figures) for name in columns]
            said: str = verdict_of(shown, run, plan, rows)
            if shown.fails and (fails := fails_here(row, plan, rows)) is not None:
                said += "<br>fails here too" if fails else "<br>does not fail here"
            lines.append([f"`{run}`", how, seeds(row), *ours, said])
        if shown.note:
            lines.append([escape(shown.note), *[""] * (len(columns) + 3)])
    return table(["row", "", "seeds", *columns.values(), "verdict"], lines)


def _cell_beside(row: Row | None, name: str, published: Mapping[str, float]) -> str:
    """Return our figure and how many of our seeds the published one is above."""
    if row is None or not row.n:
        return ABSENT
    found = cell(row, name)
    if name not in published or row.label == RAW:
        return found
    below = seeds_below(published[name], row.means(name))
    return f"{found}<br>above {below:g} of {row.n} ({below / row.n:.0%})"


def verdict_of(shown: ShownRow, run: str, plan: Plan, rows: Mapping[str, Row]) -> Verdict:
    """Return the verdict on a published row by the seeds of ``run``."""
    figures, row = plan.published_row(shown.published).figures, rows.get(run)
    if row is None or not row.n:
        return "missing"
    return judge(figures, {name: row.means(name) for name in figures}, seeded=run != RAW)


def fails_here(row: Row | None, plan: Plan, rows: Mapping[str, Row]) -> bool | None:
    """Return whether a row is worse than an untrained head of its size; None if one of them has no run."""
    null = None if row is None else rows.get(plan.untrained.get(row.out_dim or 0, ""))
    if row is None or null is None or not (row.n and null.n):
        return None
    found = compare_means(row, null)
    return found.difference < 0 and found.p_value < ALPHA


def legend() -> str:
    """Return how the table is to be read."""
    return (
        '"Above 3 of 10 (30%)": the published figure is higher than that of 3 of our 10 seeds; one of equal height '
        "counts half. As ran: as the public code really trained. As written: as its scripts say.\n\n"
        f"- **OK**: each published figure, that of the mean too, lies within our mean ± {verdict.WITHIN_SD:g} sd (the "
        f"raw encoder has no seed: within {verdict.EXACT:g}). It could be one more seed.\n"
        f"- **close**: not that, but each lies within {verdict.CLOSE:g} of our mean.\n"
        "- **differs**: one lies further off.\n"
        "- **missing**: no run is done. A single seed has no sd, so its verdict is never OK.\n"
        "- **fails here too**, of rows that were published as failures: the mean is below that of the untrained head "
        f"with as many outputs, p < {ALPHA:g} in the paired randomisation test."
    )
