"""The leaderboard: the raw encoder first, then every system, seeds pooled, each tested against raw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from ragcun_cache.collections.registry import GROUPS, test_split_of
from ragcun_cache.errors import EvaluationError, unknown_choice
from ragcun_cache.evaluation.metrics import METRICS
from ragcun_cache.evaluation.results import AgainstExact, Result, Setting, metric_name
from ragcun_cache.evaluation.significance import Comparison, compare, holm
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import Route
from ragcun_cache.files import sha256_json
from ragcun_cache.retrieval.index import FLAT

_SHORT = 6
_RAW = "raw"
_OWN = "its own collection"


@dataclass(frozen=True)
class Column:
    """One collection and split, in one version. Every figure below it is of the same setting."""

    title: str
    collection: str
    setting: str
    queries: int
    in_base_training: bool


@dataclass(frozen=True)
class GoldPart:
    """Mean over the ``queries`` some of whose relevant passages were gold in training (``seen``), or over the others.

    ``raw`` is the raw encoder's mean over the same queries.
    """

    seen: bool
    queries: int
    mean: float
    raw: float


@dataclass(frozen=True)
class Cell:
    """A row's figure on one collection: mean and sd over seeds (sd None for one seed), and against other rows.

    ``results`` are the keys of the results that ``mean`` is the mean of, by seed. Comparisons are of per-query scores
    averaged over the seeds, corrected by Holm's method for the collections of the row. ``against_raw`` is None in the
    raw row; ``against_baseline`` in its own row and where no baseline was chosen, or the baseline has no result on the
    collection. ``gold`` is empty unless the system was trained on the collection.
    """

    mean: float
    sd: float | None
    seeds: int
    results: list[str]
    against_raw: Comparison | None
    against_baseline: Comparison | None
    gold: tuple[GoldPart, ...]
    against_exact: AgainstExact | None


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
    """A table whose figures may be compared: one metric, encoder, index and route, no sampled collection among full.

    ``official`` are its splits if each is the one that figures on its collection are published on; none of it is else.
    ``route`` is None where nothing was trained. What was never trained stands in the tables of both routes.
    ``baseline`` is the label of the row that all are compared with besides raw.
    """

    metric: str
    model: str
    encoder: str
    index: str
    official: bool
    route: Route | None
    baseline: str | None
    columns: list[Column]
    rows: list[Row]


def build_leaderboards(
    results: Sequence[Result],
    store: ResultStore,
    *,
    metric: str = METRICS[0],
    baseline: str | None = None,
    n_permutations: int = 10_000,
) -> list[Leaderboard]:
    """Return one leaderboard for each encoder, index and route, and others for sampled collections if there are any.

    Splits that are no collection's official one have tables of their own: a mean of both kinds would say nothing.
    Collections that nothing trained was evaluated on have a table of their own.

    Args:
        results: what to show.
        store: where their per-query scores are.
        metric: one of ``METRICS``.
        baseline: label of a row, or name of a system in it (or a pattern of one, such as ``*lejepa*``), that every
            row is compared with besides raw, in the tables that have it.
        n_permutations: draws of the tests and intervals.

    Raises:
        EvaluationError: a collection has no result of the raw encoder, or no row or several are the baseline.

    """
    tables: dict[tuple[str, str, bool, bool, str], dict[Route | None, list[Result]]] = {}
    for result in results:
        setting, index = result.setting, result.setting.config.index
        name, other = metric_name(metric, setting.sample_of), not _is_official(setting)
        table = tables.setdefault((setting.encoder, name, other, index != FLAT, index), {})
        table.setdefault(result.route, []).append(result)
    boards = []
    for (_, name, *_), by_route in sorted(tables.items(), key=lambda item: item[0]):
        untrained = by_route.pop(None, [])
        for route, members in sorted(by_route.items(), key=str, reverse=True):
            columns = {result.setting.sha256 for result in members}
            shared = [result for result in untrained if result.setting.sha256 in columns]
            boards.append(_Table([*members, *shared], store, name, route, n_permutations).board(baseline))
        covered = {result.setting.sha256 for members in by_route.values() for result in members}
        if alone := [result for result in untrained if result.setting.sha256 not in covered]:
            boards.append(_Table(alone, store, name, None, n_permutations).board(baseline))
    if baseline is not None and not any(board.baseline for board in boards):
        labels = {row.label for board in boards for row in board.rows if not row.raw}
        raise unknown_choice("baseline", baseline, labels, error=EvaluationError)
    return boards


class _Table:
    """The results of one leaderboard, by group and column."""

    def __init__(
        self, results: Sequence[Result], store: ResultStore, metric: str, route: Route | None, n_permutations: int
    ) -> None:
        self.results, self.store, self.metric, self.route = results, store, metric, route
        self.n_permutations = n_permutations
        self.columns = _columns(results)
        self.labels = _labels(results)
        self.by_group: dict[str, dict[str, list[Result]]] = {}
        for result in results:
            by_column = self.by_group.setdefault(_group(result), {})
            by_column.setdefault(result.setting.sha256, []).append(result)
        _require_raw(results, self.columns)
        self.scores: dict[tuple[str, str], NDArray[np.float64]] = {
            (group, setting): self._scores(members)
            for group, by_column in self.by_group.items()
            for setting, members in by_column.items()
        }

    def board(self, baseline: str | None) -> Leaderboard:
        chosen = None if baseline is None else self._baseline(baseline)
        rows = [self._row(group, chosen) for group in self.by_group]
        raw_mean = next(row.mean for row in rows if row.raw)
        rows = [
            row if row.raw or row.mean is None or raw_mean is None
            else replace(row, mean_difference=row.mean - raw_mean)
            for row in rows
        ]  # fmt: skip
        rows.sort(key=lambda row: (not row.raw, row.mean is None, -(row.mean or 0.0), row.label))
        setting = self.results[0].setting
        label = None if chosen is None else self.labels[chosen]
        return Leaderboard(
            metric=self.metric,
            model=setting.model,
            encoder=setting.encoder,
            index=setting.config.index,
            official=_is_official(setting),
            route=self.route,
            baseline=label,
            columns=self.columns,
            rows=rows,
        )

    def _baseline(self, wanted: str) -> str | None:
        """Return the group whose label, or one of whose systems, is called ``wanted``."""
        names: dict[str, set[str]] = {}
        for result in self.results:
            names.setdefault(_group(result), {self.labels[_group(result)]}).add(result.system.name)
        found = [group for group, own in names.items() if wanted in own] or [
            group for group, own in names.items() if any(fnmatchcase(name, wanted) for name in own)
        ]
        if len(found) > 1:
            raise EvaluationError(
                f"several rows match the baseline {wanted!r}",
                expected="one of them",
                found="; ".join(sorted(self.labels[group] for group in found)),
            )
        return found[0] if found else None

    def _scores(self, results: Sequence[Result]) -> NDArray[np.float64]:
        """Return the (seeds, queries) scores; queries are in the order of their ids, as the store gives them."""
        return np.stack([self.store.per_query(one).values[self.metric] for one in _newest_of_each_seed(results)])

    def _row(self, group: str, baseline: str | None) -> Row:
        columns = [column for column in self.columns if (group, column.setting) in self.scores]
        raw = self._comparisons(group, _RAW, columns)
        other = {} if baseline is None else self._comparisons(group, baseline, columns)
        cells = {}
        for column in columns:
            mean_s = self.scores[group, column.setting].mean(axis=1)
            cells[column.title] = Cell(
                mean=float(mean_s.mean()),
                sd=float(mean_s.std(ddof=1)) if len(mean_s) > 1 else None,
                seeds=len(mean_s),
                results=[result.key for result in _newest_of_each_seed(self.by_group[group][column.setting])],
                against_raw=raw.get(column.setting),
                against_baseline=other.get(column.setting),
                gold=self._gold(group, column.setting),
                against_exact=_mean_against_exact(self.by_group[group][column.setting]),
            )
        seeds = max(cell.seeds for cell in cells.values())
        return Row(self.labels[group], group == _RAW, seeds, cells, _mean(cells, self.columns), None)

    def _comparisons(self, group: str, other: str, columns: Sequence[Column]) -> dict[str, Comparison]:
        """Compare two groups on every column that both have; none with itself."""
        if group == other:
            return {}
        found = {
            column.setting: compare(
                self.scores[group, column.setting].mean(axis=0),
                self.scores[other, column.setting].mean(axis=0),
                n_permutations=self.n_permutations,
            )
            for column in columns
            if (other, column.setting) in self.scores
        }
        corrected = holm({setting: one.p_value for setting, one in found.items()})
        return {setting: replace(one, p_holm=corrected[setting]) for setting, one in found.items()}

    def _gold(self, group: str, setting: str) -> tuple[GoldPart, ...]:
        seen_q = self.store.gold_seen(self.by_group[group][setting][0])
        if seen_q is None:
            return ()
        own_q = self.scores[group, setting].mean(axis=0)
        raw_q = self.scores[_RAW, setting].mean(axis=0)
        return tuple(
            GoldPart(seen, int(chosen_q.sum()), float(own_q[chosen_q].mean()), float(raw_q[chosen_q].mean()))
            for seen, chosen_q in ((True, seen_q), (False, ~seen_q))
            if chosen_q.any()
        )


def _is_official(setting: Setting) -> bool:
    return setting.split == test_split_of(setting.collection)


def _settings(result: Result) -> dict[str, Any]:
    """Return what tells systems apart in a table.

    In the in-domain one all that were trained on the very collection of their figure are alike in that: their row is of
    heads that are each evaluated on their own. One that was trained on a sample of it, say, was trained on another.
    """
    system = result.system
    settings = {**system.settings, "similarity": None if system.similarity is None else str(system.similarity)}
    if system.code is not None:
        settings["code"] = system.code
    if result.route == "in-domain":
        if settings.get("dataset") == result.setting.collection:
            settings["dataset"] = _OWN
            settings.pop("train_caches", None)
        return settings
    if system.trained_on and "dataset" not in settings:
        # A system that was chosen among several says itself what is common to its seeds, whichever of them it is.
        settings.setdefault("trained_on", ", ".join(f"{one.collection}/{one.split}" for one in system.trained_on))
    return settings


def _group(result: Result) -> str:
    system = result.system
    if system.is_raw:
        return _RAW
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


def _require_raw(results: Sequence[Result], columns: Sequence[Column]) -> None:
    with_raw = {result.setting.sha256 for result in results if result.system.is_raw}
    missing = [column for column in columns if column.setting not in with_raw]
    if missing:
        (first, *_) = [one.setting for one in results if one.setting.sha256 == missing[0].setting]
        raise EvaluationError(
            "a table without the raw encoder says nothing",
            expected="a result of the identity head on every collection",
            found=f"none on {', '.join(column.title for column in missing)}",
            fix=first.eval_command,
        )


def _newest_of_each_seed(results: Sequence[Result]) -> list[Result]:
    newest = {result.system.seed: result for result in sorted(results, key=lambda result: result.date)}
    return [newest[seed] for seed in sorted(newest, key=lambda seed: -1 if seed is None else seed)]


def _mean_against_exact(results: Sequence[Result]) -> AgainstExact | None:
    found = [one.against_exact for one in _newest_of_each_seed(results) if one.against_exact is not None]
    if not found:
        return None
    return AgainstExact(
        recall=float(np.mean([one.recall for one in found])),
        ndcg_difference=float(np.mean([one.ndcg_difference for one in found])),
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
    content: dict[str, Any] = to_jsonable_python(leaderboard)
    return content
