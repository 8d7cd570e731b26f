"""The tables of all rows: figures, diagnostics, and the residual of the predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ragcun_cache.markdown import escape, paragraphs, table
from reproduction.cells import (
    ABSENT,
    AGAIN,
    TITLES,
    alarms,
    cell,
    diagnostic_columns,
    difference,
    figure,
    seeds,
    seeds_in_words,
)
from reproduction.difference import differences
from reproduction.plan import Plan
from reproduction.rows import MEAN, RAW, Row
from reproduction.verdict import spread

_FACTOR = 2


def residual_section(plan: Plan, rows: Mapping[str, Row]) -> Iterator[str]:
    """Yield the section of the predictor's residual, if there is a published one."""
    published = plan.published.residual
    if published is None or plan.residual is None:
        return
    row = rows[plan.residual]
    wanted = [("first batch", 1, name, there) for name, there in published.first_batch.items()]
    wanted += [
        (f"epoch {epoch}", epoch, name, there)
        for epoch, figures in published.epochs.items()
        for name, there in figures.items()
    ]
    yield "## The predictor's residual"
    yield f"Of `{row.label}`, over {seeds_in_words(row)}. Published figures: {escape(published.source)}."
    lines = []
    for when, epoch, name, there in wanted:
        found = spread(np.array(row.column(name, epoch)))
        ours, factor, within = ("not measured" if row.n else AGAIN), ABSENT, ABSENT
        if found.mean is not None:
            ours = f"{found.mean:.6f}" + (f" ± {found.sd:.6f}" if found.sd is not None else "")
            factor = f"{found.mean / there:.2f}"
            within = "yes" if 1 / _FACTOR <= found.mean / there <= _FACTOR else "no"
        lines.append([when, f"`{name}`", f"{there:.6f}", ours, factor, within])
    yield table(["when", "figure", "published", "ours", "ours ÷ published", f"within a factor of {_FACTOR}"], lines)


def all_rows(plan: Plan, rows: Mapping[str, Row]) -> str:
    """Return a line for every row, done or not, with its differences to the raw encoder and to an untrained head."""
    raw, lines = rows.get(RAW), []
    for row in rows.values():
        null = rows.get(plan.untrained.get(row.out_dim or 0, ""))
        cells = []
        to_raw, to_null = (
            {} if other is None or other is row or row.label == RAW else differences(row, other)
            for other in (raw, null)
        )
        for name in plan.published.collections:
            cells += [cell(row, name), *(difference(found.get(name)) for found in (to_raw, to_null))]
        lines.append([f"`{row.label}`", seeds(row), *cells, cell(row, MEAN)])
    titles = []
    for title in plan.published.collections.values():
        titles += [title, "to raw", "to untrained"]
    return paragraphs(
        table(["run", "seeds", *titles, "mean"], lines),
        "Differences are to the raw encoder and to the untrained head with as many outputs "
        f"({', '.join(f'`{label}`' for label in plan.untrained.values())}), with p of the two-sided paired "
        "randomisation test on per-query scores averaged over the seeds that both rows have, corrected by Holm's "
        "method for the collections of the row, not for the number of rows.",
    )


def diagnostics(rows: Sequence[Row]) -> str:
    """Return a line for every row with whatever diagnostics any of them has, and its alarms."""
    trained = [row for row in rows if row.label != RAW]
    names = diagnostic_columns(trained)
    lines = [[f"`{row.label}`", *(figure(row, name) for name in names), alarms(row)] for row in trained]
    return paragraphs(
        "On the training collection, at the epoch whose weights are kept; means over the seeds. An alarm is followed "
        "by the number of seeds that raised it. What each figure is: [diagnostics.md](diagnostics.md).",
        table(["run", *(TITLES.get(name, name) for name in names), "alarms"], lines),
    )
