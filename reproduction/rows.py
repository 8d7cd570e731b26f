"""Rows: the runs of recipes that differ by nothing but the seed, with their scores and metrics as they are on disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.ablation.grid import PlannedRun, cross
from ragcun_cache.ablation.recipe import Recipe
from ragcun_cache.ablation.sweep import Sweep, SweepRun
from ragcun_cache.errors import ConfigError, EvaluationError
from ragcun_cache.evaluation.metrics import METRICS
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.training.config import TrainConfig
from ragcun_cache.training.run import METRICS_NAME

RAW = "raw encoder"
MEAN = "mean"
"""Stands among the collections for the mean of all of them."""
METRIC = METRICS[0]


@dataclass(frozen=True)
class SeedRun:
    """One run that is done. ``epochs`` are the rows of its metrics table; ``scores`` are (q,) by collection."""

    head: HeadRecord | None
    epochs: list[dict[str, Any]]
    results: list[Result]
    scores: dict[str, NDArray[np.float64]]

    @property
    def kept(self) -> dict[str, Any]:
        """Return the metrics of the epoch that the weights are from."""
        return {} if self.head is None else self.head.provenance.get("metrics") or {}


@dataclass(frozen=True)
class Row:
    """Runs that share all settings but the seed, called ``label``.

    ``asked`` are the seeds of the recipes; ``runs`` are those that are done, by seed; ``errors`` say why others are
    not, and a seed in neither has not been run. ``config`` is that of the first seed, None for the raw encoder.
    """

    label: str
    config: TrainConfig | None
    asked: list[int] = field(default_factory=list)
    runs: dict[int, SeedRun] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of seeds that are done."""
        return len(self.runs)

    @property
    def out_dim(self) -> int | None:
        """Dimensions of the outputs, None if no run is done."""
        return next((run.results[0].system.out_dim for run in self.runs.values()), None)

    def shared_seeds(self, other: Row) -> list[int]:
        """Return the seeds that both rows have: heads of one seed and shape begin alike. The raw encoder has none."""
        return [] if RAW in (self.label, other.label) else sorted(self.runs.keys() & other.runs.keys())

    def per_query(self, seeds: Collection[int] = ()) -> dict[str, NDArray[np.float64]]:
        """Return the per-query scores averaged over ``seeds`` (none named: all that are done), (q,) by collection."""
        scores = [run.scores for seed, run in self.runs.items() if not seeds or seed in seeds]
        return {name: np.mean([one[name] for one in scores], axis=0) for name in (scores[0] if scores else {})}

    def means(self, collection: str) -> NDArray[np.float64]:
        """Return the mean over queries of every seed that is done, (s,); for ``MEAN``, their mean over collections."""
        return np.array(
            [
                np.mean([scores_q.mean() for name, scores_q in run.scores.items() if collection in (name, MEAN)])
                for run in self.runs.values()
            ]
        )

    def column(self, name: str, epoch: int | None = None) -> list[float]:
        """Return a figure of the metrics table for every seed that has it: at ``epoch``, or at the kept one."""
        rows = [
            run.kept if epoch is None else next((row for row in run.epochs if row["epoch"] == epoch), {})
            for run in self.runs.values()
        ]
        return [float(row[name]) for row in rows if row.get(name) is not None]

    def alarms(self) -> dict[str, int] | None:
        """Return the name of every alarm that was raised, and by how many seeds; None if no head says."""
        raised: dict[str, int] = {}
        told = [
            run.head.provenance["alarms"] for run in self.runs.values() if run.head and "alarms" in run.head.provenance
        ]
        if not told:
            return None
        for given in told:
            for name in dict.fromkeys(str(alarm["name"]) for alarm in given):
                raised[name] = raised.get(name, 0) + 1
        return raised


def planned_rows(recipe: Recipe) -> dict[str, list[PlannedRun]]:
    """Return the runs of a recipe by what they are called without the seed, also those that equal an earlier one."""
    rows: dict[str, dict[int, PlannedRun]] = {}
    for own in recipe.runs or [{}]:
        for run in cross(recipe.train, recipe.grid, own, recipe.seeds):
            rows.setdefault(run.label.rsplit(", seed ", 1)[0], {})[run.config.seed] = run
    return {label: list(runs.values()) for label, runs in rows.items()}


def read_rows(recipes: Sequence[Recipe], home: Home) -> dict[str, Row]:
    """Return every row of ``recipes`` by its label, done or not; the raw encoder first, if any run is done.

    Raises:
        ConfigError: two recipes call different settings by one name, or no run of a recipe can begin.
        EvaluationError: results of one collection belong to different versions of it, or to different encoders.

    """
    rows: dict[str, Row] = {}
    raw: dict[str, Result] = {}
    store = ResultStore(home.results)
    for recipe in recipes:
        sweep = Sweep(recipe, home)
        found = {run.planned.config.model_dump_json(): run for run in sweep.runs}
        for label, planned in planned_rows(recipe).items():
            row = rows.setdefault(label, Row(label, planned[0].config))
            _require_same(row, planned[0])
            for one in planned:
                _add(row, one.config.seed, found[one.config.model_dump_json()], sweep, store)
        raw |= {result.key: result for result in sweep.results() if result.system.is_raw}
    if raw:
        rows = {RAW: Row(RAW, None, [0], {0: _seed_run(None, list(raw.values()), store)}), **rows}
    _require_one_setting(rows)
    return rows


def _require_same(row: Row, planned: PlannedRun) -> None:
    assert row.config is not None
    one, other = (config.model_dump(exclude={"seed"}) for config in (row.config, planned.config))
    if one != other:
        differing = sorted(name for name in one if one[name] != other[name])
        raise ConfigError(
            f"two recipes call different runs {row.label!r}", found=f"they differ in {', '.join(differing)}"
        )


def _add(row: Row, seed: int, run: SweepRun, sweep: Sweep, store: ResultStore) -> None:
    if seed not in row.asked:
        row.asked.append(seed)
    if run.state == "done":
        row.runs[seed] = _seed_run(sweep.head(run), run.results, store)
    elif run.state == "failed":
        row.errors[seed] = (run.error or "").splitlines()[0]


def _seed_run(head: HeadRecord | None, results: list[Result], store: ResultStore) -> SeedRun:
    import polars as pl

    epochs = [] if head is None else pl.read_parquet(head.folder / METRICS_NAME).to_dicts()
    scores = {result.setting.collection: store.per_query(result).values[METRIC] for result in results}
    return SeedRun(head, epochs, results, scores)


def _require_one_setting(rows: Mapping[str, Row]) -> None:
    settings: dict[str, str] = {}
    for row in rows.values():
        for run in row.runs.values():
            for result in run.results:
                own = result.setting.sha256
                if settings.setdefault(result.setting.collection, own) != own:
                    raise EvaluationError(
                        f"figures on {result.setting.collection} are of different vectors or judgements",
                        where=row.label,
                        fix="name one encoder in the recipes",
                    )
