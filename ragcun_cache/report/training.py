"""Curves by epoch: what the heads of each row were measured to be, the mean over their seeds and its range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from ragcun_cache.alarms import Alarm, alarms
from ragcun_cache.evaluation.leaderboard import Leaderboard
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.report.boards import Series, row_results, told_apart
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
    {
        "measure": "effective_rank",
        "title": "Effective rank",
        "group": "collapse",
        "note": "directions that the outputs use, if they used them alike (RankMe)",
    },
    {
        "measure": "in_batch_accuracy",
        "title": "Accuracy in a batch",
        "group": "collapse",
        "note": "how often a training query finds its passage among 64; a guess does in 1.6 %",
    },
    {
        "measure": "top10_overlap",
        "title": "Top 10 in common with raw",
        "group": "collapse",
        "note": "mean share of the ten passages that raw vectors bring first",
    },
]


def training_content(boards: Sequence[Leaderboard], series: Series, sources: Sources) -> dict[str, Any]:
    """Return the curves of every row that was trained here, by the collection that it was trained on."""
    found: dict[frozenset[str], tuple[Leaderboard, dict[str, Any]]] = {}
    for number, board in enumerate(boards):
        for row in board.rows:
            records = {
                record.sha256: record
                for result in row_results(row, sources)
                if (record := sources.record(result)) is not None
            }
            for heads, run in _runs(row.label, series[number, row.label], list(records.values()), sources):
                # The same heads may stand in several leaderboards, in that of an index fewer of them.
                if not any(heads <= known for known in found):
                    found[heads] = board, run
    # Curves of one collection are drawn in one chart, where two of one label could not be told apart.
    runs = [run for _, run in found.values()]
    for place in {run["trained_on"] for run in runs}:
        here = [(board, run) for board, run in found.values() if run["trained_on"] == place]
        for (_, run), label in zip(here, told_apart([(run["label"], board) for board, run in here]), strict=True):
            run["label"] = label
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


def _runs(
    label: str, number: int, records: Sequence[HeadRecord], sources: Sources
) -> Iterator[tuple[frozenset[str], dict[str, Any]]]:
    """Yield one entry for each collection that heads of a row were trained on: dev sets cannot be compared.

    Before it stand the hashes of its heads.
    """
    by_place: dict[str, list[tuple[HeadRecord, list[dict[str, Any]]]]] = {}
    for record in records:
        rows = sources.metrics(record)
        if len(rows) > 1:
            place = str((record.provenance.get("caches") or {}).get("collection"))
            by_place.setdefault(place, []).append((record, rows))
    for place, heads in by_place.items():
        yield (
            frozenset(record.sha256 for record, _ in heads),
            {
                "label": label,
                "series": number,
                "trained_on": place,
                "seeds": len(heads),
                "dev": f"{heads[0][1][0].get('dev_queries')} queries of {place}",
                "measures": _measures([rows for _, rows in heads]),
                "alarms": _alarms(heads),
            },
        )


def _alarms(heads: Sequence[tuple[HeadRecord, Sequence[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Return the alarms of the heads of a row: name, how many heads raise it, and the words of the first of them."""
    raised: dict[str, list[Alarm]] = {}
    for record, rows in heads:
        for alarm in alarms(rows, record.provenance.get("epoch")):
            raised.setdefault(alarm.name, []).append(alarm)
    return [
        {"name": name, "seeds": len(same), "epoch": same[0].epoch, "text": same[0].text}
        for name, same in raised.items()
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
