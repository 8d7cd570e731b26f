"""``docs/reproduction.md``: every word of it that depends on a result is made from results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from ragcun_cache.home import Home
from ragcun_cache.markdown import escape, paragraphs
from reproduction.causes import Finding
from reproduction.causes_section import causes_section
from reproduction.cells import AGAIN
from reproduction.plan import Plan
from reproduction.provenance import provenance
from reproduction.published_table import fails_here, legend, published_table, verdict_of
from reproduction.rows import Row
from reproduction.tables import all_rows, diagnostics, residual_section
from reproduction.verdict import Verdict

_HEAD = """\
# The published table, reproduced

Written by `make reproduce` (`python -m reproduction`) from the results store; do not edit. All figures are NDCG@10 on
the official test splits; ± is the standard deviation over seeds."""


@dataclass(frozen=True)
class Content:
    """What the page is made from. ``figures`` are Markdown images, ready to stand in it."""

    plan: Plan
    rows: Mapping[str, Row]
    findings: Sequence[Finding]
    figures: Sequence[str]
    home: Home


def render_page(content: Content) -> str:
    """Return the whole page as Markdown."""
    plan, rows = content.plan, content.rows
    parts = [
        _HEAD,
        _summary(content),
        "## Published and ours",
        published_table(plan, rows),
        legend(),
        *content.figures,
        *causes_section(content.findings, rows, plan.published.collections),
        *residual_section(plan, rows),
        "## All rows and ablations",
        all_rows(plan, rows),
        "## Diagnostics",
        diagnostics(list(rows.values())),
        *_missing(rows),
        "## Where these figures come from",
        provenance(rows, content.home),
    ]
    return paragraphs(*parts) + "\n"


def _summary(content: Content) -> str:
    plan, rows = content.plan, content.rows
    shown = [(one, next(iter(one.runs.values()), None)) for one in plan.rows]
    verdicts = [verdict_of(one, run, plan, rows) if run else "without a run" for one, run in shown]
    counts = ", ".join(f"{name} {verdicts.count(name)}" for name in dict.fromkeys([*get_args(Verdict), *verdicts]))
    failing = [fails_here(rows.get(run), plan, rows) for one, run in shown if one.fails and run]
    borne_out = [finding.supported for finding in content.findings]
    return (
        f"{len(verdicts)} published rows, as they really ran: {counts}. {len(failing)} of them failed where they were "
        f"published; of these, failing here too {failing.count(True)}, not failing {failing.count(False)}, missing "
        f"{failing.count(None)}. "
        f"{len(borne_out)} claims about causes: supported by an ablation {borne_out.count(True)}, not supported "
        f"{borne_out.count(False)}, open {borne_out.count(None)}."
    )


def _missing(rows: Mapping[str, Row]) -> Iterator[str]:
    """Yield what is not done, and why, if there is anything."""
    lines = []
    for row in rows.values():
        never = [seed for seed in row.asked if seed not in row.runs and seed not in row.errors]
        if never:
            lines.append(f"- `{row.label}`: {len(never)} of {len(row.asked)} seeds are {AGAIN}")
        for error in dict.fromkeys(row.errors.values()):
            seeds = [seed for seed, own in row.errors.items() if own == error]
            lines.append(f"- `{row.label}`: {len(seeds)} of {len(row.asked)} seeds failed: {escape(error)}")
    if lines:
        yield "## What is missing"
        yield "\n".join(lines)
