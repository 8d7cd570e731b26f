"""How figures are written in the tables and sentences of the page. They are rounded here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ragcun_cache.evaluation.significance import p_text
from ragcun_cache.markdown import escape
from reproduction.difference import Difference
from reproduction.rows import RAW, Row
from reproduction.verdict import spread

AGAIN = "missing: run `make reproduce`"
ABSENT = "–"
# Columns of the metrics table that are figures of the training or of the data, not of the head.
_NOT_DIAGNOSTIC = (
    "epoch", "steps", "learning_rate", "loss", "dev_loss", "dev_queries", "dev_corpus_rows", "raw_dev_ndcg@10",
    "in_batch_chance", "rank_limit",
)  # fmt: skip
TITLES = {
    "dev_ndcg@10": "dev NDCG@10",
    "output_std": "output sd",
    "output_std_ratio": "sd ÷ at start",
    "top10_overlap": "top 10 in common with raw",
    "hubness_skewness": "hubness (skewness)",
    "anti_hub_share": "anti-hubs",
    "in_batch_accuracy": "in-batch accuracy",
    "alignment": "alignment",
    "query_passage_gap": "query-passage gap",
    "mean_norm": "mean norm",
    "mean_cosine": "mean cosine",
    "uniformity": "uniformity",
    "effective_rank": "RankMe",
    "iso_score": "IsoScore",
    "sigreg": "SIGReg",
    "relative_residual": "relative residual",
}


def seeds(row: Row | None) -> str:
    """Return how many seeds are done, and of how many if some are not."""
    if row is None or row.label == RAW:
        return ABSENT
    return str(row.n) if row.n == len(row.asked) else f"{row.n} of {len(row.asked)}"


def seeds_in_words(row: Row) -> str:
    """Return ``seeds`` for a sentence."""
    return f"{seeds(row)} seed" if seeds(row) == "1" else f"{seeds(row)} seeds"


def cell(row: Row, name: str) -> str:
    """Return mean and sd over the seeds on a collection, or on the mean of all."""
    if not row.n:
        return ABSENT
    found = spread(row.means(name))
    return f"{found.mean:.4f}" + (f" ± {found.sd:.4f}" if found.sd is not None else "")


def figure(row: Row, name: str) -> str:
    """Return the mean over the seeds of a column of the metrics table."""
    found = spread(np.array(row.column(name)))
    return ABSENT if found.mean is None else f"{found.mean:.4g}"


def alarms(row: Row) -> str:
    """Return every alarm with the number of seeds that raised it; "none" only where heads say so."""
    raised = row.alarms()
    if raised is None:
        return ABSENT
    return "; ".join(f"{escape(name)} ({number})" for name, number in raised.items()) or "none"


def difference(found: Difference | None) -> str:
    """Return a difference with its corrected p."""
    return ABSENT if found is None else f"{found.value:+.4f} ({p_text(found.p_holm)})"


def diagnostic_columns(rows: Iterable[Row]) -> list[str]:
    """Return the diagnostics that any of the rows has a figure of, in the order of their tables."""
    names: dict[str, None] = {}
    for row in rows:
        for run in row.runs.values():
            names.update(dict.fromkeys(name for name, value in run.kept.items() if _is_diagnostic(name, value)))
    # Of what is watched in every step, the mean; not that of the first and the last step beside it.
    return [name for name in names if name.removesuffix("_first").removesuffix("_last") not in names.keys() - {name}]


def _is_diagnostic(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return name not in _NOT_DIAGNOSTIC and not name.startswith("loss_") and not name.endswith("_seconds")
