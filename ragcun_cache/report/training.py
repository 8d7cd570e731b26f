"""Curves by epoch: what the heads of each row were measured to be, the mean over their seeds and its range."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from ragcun_cache.evaluation.leaderboard import Leaderboard
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.report.boards import row_results
from ragcun_cache.report.sources import Sources
from ragcun_cache.training.diagnostics import DEV_METRIC

MAX_RUNS = 16
"""Rows whose curves are shown, the best of each leaderboard first: more could not be told apart."""

_CHARTS: list[dict[str, Any]] = [
    {"measure": DEV_METRIC, "title": "NDCG@10 on dev", "group": "learning", "note": "epoch 0 is before training"},
    {
        "measure": "loss",
        "title": "Loss",
        "group": "learning",
        "note": "weighted sum of its terms, mean over the steps of an epoch",
        "log": "wide",
    },
    {
        "measure": "relative_residual",
        "title": "Relative residual",
        "group": "collapse",
        "note": "mean of ‖f(x) − x‖ / ‖x‖ of the passages; only for heads that start at the identity",
    },
    {
        "measure": "output_std_ratio",
        "title": "Output standard deviation, to the start",
        "group": "collapse",
        "note": "below 1 the outputs shrink, near 0 they have collapsed",
        "reference": {"y": 1, "label": "start"},
        "log": True,
    },
    {
        "measure": "mean_cosine",
        "title": "Mean cosine of two passages",
        "group": "collapse",
        "note": "near 1 all passages point the same way",
    },
]


def training_content(boards: Sequence[Leaderboard], series: dict[str, int], sources: Sources) -> dict[str, Any]:
    """Return the curves of every row that was trained here, by the collection that it was trained on."""
    labels: dict[str, dict[str, HeadRecord]] = {}
    for board in boards:
        for row in board.rows:
            for result in row_results(row, sources):
                if (record := sources.record(result)) is not None:
                    labels.setdefault(row.label, {})[record.sha256] = record
    runs = [
        run for label, found in labels.items() for run in _runs(label, series[label], list(found.values()), sources)
    ]
    if len(runs) > MAX_RUNS:
        sources.left_out.append(
            f"Training curves of {len(runs) - MAX_RUNS} rows; those of the first {MAX_RUNS} are here."
        )
        runs = runs[:MAX_RUNS]
    terms = sorted({name for run in runs for name in run["measures"] if name.startswith("loss_")})
    charts = [*_CHARTS[:2], *map(_term_chart, terms), *_CHARTS[2:]]
    sizes = sorted({run["dev"] for run in runs})
    return {
        "runs": runs,
        "measures": charts,
        "note": f"Lines are means over seeds, bands reach from the least to the greatest. Dev: {'; '.join(sizes)}.",
    }


def _term_chart(name: str) -> dict[str, Any]:
    term = name.removeprefix("loss_").replace("_", " ")
    return {"measure": name, "title": f"Loss term: {term}", "group": "learning", "note": "unweighted", "log": "wide"}


def _runs(label: str, number: int, records: Sequence[HeadRecord], sources: Sources) -> list[dict[str, Any]]:
    """Return one entry for each collection that heads of this label were trained on: dev sets cannot be compared."""
    by_place: dict[str, list[list[dict[str, Any]]]] = {}
    for record in records:
        rows = sources.metrics(record)
        if len(rows) > 1:
            place = str((record.provenance.get("caches") or {}).get("collection"))
            by_place.setdefault(place, []).append(rows)
    return [
        {
            "label": label,
            "series": number,
            "trained_on": place,
            "seeds": len(tables),
            "dev": f"{tables[0][0].get('dev_queries')} queries of {place}",
            "measures": _measures(tables),
        }
        for place, tables in by_place.items()
    ]


def _measures(tables: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    names = [name for name in tables[0][0] if name.startswith("loss") or any(one["measure"] == name for one in _CHARTS)]
    return {name: curve for name in names if (curve := _curve(tables, name))["epochs"]}


def _curve(tables: Sequence[Sequence[dict[str, Any]]], name: str) -> dict[str, Sequence[float]]:
    values: dict[int, list[float]] = {}
    for rows in tables:
        for row in rows:
            if row.get(name) is not None and isfinite(row[name]):
                values.setdefault(row["epoch"], []).append(row[name])
    epochs = sorted(values)
    return {
        "epochs": epochs,
        "mean": [fmean(values[epoch]) for epoch in epochs],
        "low": [min(values[epoch]) for epoch in epochs],
        "high": [max(values[epoch]) for epoch in epochs],
    }
