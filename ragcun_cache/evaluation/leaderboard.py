"""The leaderboard: the raw encoder first, then every system, seeds pooled, each tested against raw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.collections.registry import GROUPS
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.metrics import METRICS
from ragcun_cache.evaluation.results import Result, metric_name
from ragcun_cache.evaluation.significance import Comparison, compare
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import Route
from ragcun_cache.files import sha256_json

_SHORT = 6


@dataclass(frozen=True)
class Column:
    """One collection and split, in one version. Every figure below it is of the same setting."""

    title: str
    collection: str
    setting: str
    queries: int
    in_base_training: bool


@dataclass(frozen=True)
class Cell:
    """A row's figure on one collection: mean and sd over seeds (sd None for one seed), and against raw.

    ``results`` are the keys of the results that it is the mean of, by seed. ``against_raw`` compares per-query scores
    averaged over the seeds; it is None in the raw row.
    """

    mean: float
    sd: float | None
    seeds: int
    results: list[str]
    against_raw: Comparison | None


@dataclass(frozen=True)
class Row:
    """One way to make a system. ``cells`` are by column title; a collection it was not evaluated on is not there.

    ``mean`` is over collections (a group such as CQADupStack counts once), None unless the row has all of them.
    """

    label: str
    raw: bool
    seeds: int
    cells: dict[str, Cell]
    mean: float | None
    mean_difference: float | None


@dataclass(frozen=True)
class Leaderboard:
    """A table whose figures may be compared: one metric, one encoder, one route, and no sampled collection among full.

    ``route`` is None where nothing was trained. What was never trained stands in the tables of both routes.
    """

    metric: str
    model: str
    encoder: str
    route: Route | None
    columns: list[Column]
    rows: list[Row]


def build_leaderboards(
    results: Sequence[Result], store: ResultStore, *, metric: str = METRICS[0], n_permutations: int = 10_000
) -> list[Leaderboard]:
    """Return one leaderboard for each encoder and route, and others for its sampled collections if it has any.

    Raises:
        EvaluationError: a collection has no result of the raw encoder.

    """
    tables: dict[tuple[str, str], dict[Route | None, list[Result]]] = {}
    for result in results:
        name = metric_name(metric, result.setting.sample_of)
        tables.setdefault((result.setting.encoder, name), {}).setdefault(result.route, []).append(result)
    boards = []
    for (_, name), by_route in sorted(tables.items(), key=lambda item: item[0]):
        untrained = by_route.pop(None, [])
        for route, members in sorted(by_route.items(), key=str, reverse=True) or [(None, [])]:
            columns = {result.setting.sha256 for result in members}
            shared = [result for result in untrained if not columns or result.setting.sha256 in columns]
            boards.append(_build([*members, *shared], store, name, route, n_permutations))
    return boards


def _build(
    results: Sequence[Result], store: ResultStore, metric: str, route: Route | None, n_permutations: int
) -> Leaderboard:
    columns = _columns(results)
    labels = _labels(results)
    by_group: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_column = by_group.setdefault(_group(result), {})
        by_column.setdefault(result.setting.sha256, []).append(result)
    raw_group = _group_of_raw(results, columns)
    raw_scores = {
        column.setting: _scores(_newest_of_each_seed(by_group[raw_group][column.setting]), store, metric)
        for column in columns
    }
    rows = []
    for group, by_column in by_group.items():
        cells = {
            column.title: _cell(by_column[column.setting], store, metric, raw_scores[column.setting], n_permutations)
            for column in columns
            if column.setting in by_column
        }
        if group == raw_group:
            cells = {title: replace(cell, against_raw=None) for title, cell in cells.items()}
        seeds = max(cell.seeds for cell in cells.values())
        rows.append(Row(labels[group], group == raw_group, seeds, cells, _mean(cells, columns), None))
    raw_mean = next(row.mean for row in rows if row.raw)
    rows = [
        row if row.raw or row.mean is None or raw_mean is None else replace(row, mean_difference=row.mean - raw_mean)
        for row in rows
    ]
    rows.sort(key=lambda row: (not row.raw, row.mean is None, -(row.mean or 0.0), row.label))
    setting = results[0].setting
    return Leaderboard(metric, setting.model, setting.encoder, route, columns, rows)


def _settings(result: Result) -> dict[str, Any]:
    """Return what tells systems apart in a table: in the in-domain one, that each is trained on its own collection."""
    system = result.system
    settings = {**system.settings, "similarity": None if system.similarity is None else str(system.similarity)}
    if result.route == "in-domain":
        return {key: value for key, value in settings.items() if key not in {"dataset", "train_caches"}}
    if system.trained_on and "dataset" not in settings:
        settings["trained_on"] = ", ".join(f"{one.collection}/{one.split}" for one in system.trained_on)
    return settings


def _group(result: Result) -> str:
    system = result.system
    if system.is_raw:
        return "raw"
    return sha256_json([system.label, result.route, _settings(result)])


def _columns(results: Sequence[Result]) -> list[Column]:
    settings = {result.setting.sha256: result for result in results}
    titles = {key: f"{one.setting.collection}/{one.setting.split}" for key, one in settings.items()}
    columns = []
    for key, one in settings.items():
        title = titles[key]
        if list(titles.values()).count(title) > 1:
            # Two versions of one collection, or two ways to evaluate it.
            title = f"{title} #{key[:_SHORT]}"
        columns.append(Column(title, one.setting.collection, key, one.counts.judged, one.in_base_training))
    return sorted(columns, key=lambda column: column.title)


def _labels(results: Sequence[Result]) -> dict[str, str]:
    """Name every group; groups that would share a name are told apart by the settings in which they differ."""
    groups = {_group(result): result for result in results}
    short = {group: result.system.label for group, result in groups.items()}
    labels = {}
    for group, name in short.items():
        settings = [_settings(groups[other]) for other in short if short[other] == name]
        keys = sorted({key for one in settings for key in one})
        differing = [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]
        own = _settings(groups[group])
        labels[group] = ", ".join([name, *(f"{key}={own[key]}" for key in differing if key in own)])
    return labels


def _group_of_raw(results: Sequence[Result], columns: Sequence[Column]) -> str:
    with_raw = {result.setting.sha256 for result in results if result.system.is_raw}
    missing = [column for column in columns if column.setting not in with_raw]
    if missing:
        datasets = " ".join(f"--dataset {name}" for name in sorted({column.collection for column in missing}))
        raise EvaluationError(
            "a table without the raw encoder says nothing",
            expected="a result of the identity head on every collection",
            found=f"none on {', '.join(column.title for column in missing)}",
            fix=f"ragcun-cache eval {datasets}",
        )
    return "raw"


def _newest_of_each_seed(results: Sequence[Result]) -> list[Result]:
    newest = {result.system.seed: result for result in sorted(results, key=lambda result: result.date)}
    return [newest[seed] for seed in sorted(newest, key=lambda seed: -1 if seed is None else seed)]


def _scores(results: Sequence[Result], store: ResultStore, metric: str) -> NDArray[np.float64]:
    """Return the (seeds, queries) scores; queries are in the same order in all results of one setting."""
    return np.stack([store.per_query(result).values[metric] for result in results])


def _cell(
    results: Sequence[Result], store: ResultStore, metric: str, raw_sq: NDArray[np.float64], n_permutations: int
) -> Cell:
    pooled = _newest_of_each_seed(results)
    scores_sq = _scores(pooled, store, metric)
    mean_s = scores_sq.mean(axis=1)
    return Cell(
        mean=float(mean_s.mean()),
        sd=float(mean_s.std(ddof=1)) if len(mean_s) > 1 else None,
        seeds=len(mean_s),
        results=[result.key for result in pooled],
        against_raw=compare(scores_sq.mean(axis=0), raw_sq.mean(axis=0), n_permutations=n_permutations),
    )


def _mean(cells: Mapping[str, Cell], columns: Sequence[Column]) -> float | None:
    """Return the mean over collections, in which a group counts once, as the mean of its members."""
    if any(column.title not in cells for column in columns):
        return None
    group_of = {member: group for group, members in GROUPS.items() for member in members}
    means: dict[str, list[float]] = {}
    for column in columns:
        means.setdefault(group_of.get(column.collection, column.title), []).append(cells[column.title].mean)
    return float(np.mean([np.mean(values) for values in means.values()]))


def as_json(leaderboard: Leaderboard) -> dict[str, Any]:
    """Return the table as JSON content, figures at full precision."""
    from dataclasses import asdict

    return asdict(leaderboard)
