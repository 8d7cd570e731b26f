"""Searching settings by their NDCG@10 on the dev queries, never on what the heads are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import mean
from typing import TYPE_CHECKING, Any

from ragcun_cache.ablation.grid import PlannedRun, cross
from ragcun_cache.ablation.recipe import Range, Recipe
from ragcun_cache.errors import ConfigError, RagcunCacheError, TrainingError
from ragcun_cache.evaluation.candidates import CHOSEN_BY_SEARCH, trained_on
from ragcun_cache.evaluation.system import System
from ragcun_cache.heads.store import HeadRecord, rewrite_record
from ragcun_cache.training.diagnostics import DEV_METRIC

if TYPE_CHECKING:
    import optuna

    from ragcun_cache.ablation.sweep import Sweep, SweepRun

# Asked for together whatever the number of workers, so that this number changes nothing about what is asked.
_ASKED_AT_ONCE = 4


@dataclass(frozen=True)
class Trial:
    """One point of the space. ``dev`` is the mean over seeds of NDCG@10 on dev, None if a run failed or cannot be."""

    settings: dict[str, Any]
    dev: float | None


@dataclass(frozen=True)
class Found:
    """All trials in the order in which they were asked for, and the first of the highest dev figure (None: none)."""

    trials: list[Trial]
    best: Trial | None


def require_search(sweep: Sweep) -> None:
    """Raise what stands against a search before anything is trained.

    Raises:
        ConfigError: optuna is not installed.
        TrainingError: there are no dev queries.
        EvaluationError: the dev queries are those of a split that is evaluated on.

    """
    if find_spec("optuna") is None:
        raise ConfigError("a search needs optuna", fix="pip install 'ragcun-cache[search]'")
    config = trial_runs(sweep.recipe, {})[0].config
    data = sweep.bench.data(config)
    if not data.dev_qrels:
        raise TrainingError(
            f"{data.collection} has no dev query to search by", fix="name a dev split: train: {dev: SPLIT}"
        )
    # Dev queries that no split names were cut from train.
    chosen_by = trained_on(data.collection, [data.dev_split or config.train], sweep.home)
    best = System(name="the best trial of the search", sha256="", arch=str(config.arch), trained_on=chosen_by)
    for subject in sweep.bench.subjects(data.caches.vectors):
        if (refused := subject.refusal(best)) is not None:
            raise refused


def mark_chosen(record: HeadRecord, recipe: Recipe) -> None:
    """Write into the record of a head that a search chose it: its dev queries are not new to it, whatever ``select``.

    The settings of a head that is marked already were chosen by the same dev queries: these are part of its name.
    """
    assert recipe.search is not None
    if CHOSEN_BY_SEARCH not in record.provenance:
        chosen = {"recipe": recipe.name, "trials": recipe.search.trials}
        rewrite_record(record.folder, {**record.provenance, CHOSEN_BY_SEARCH: chosen})


def search(sweep: Sweep, run_all: Callable[[Sequence[SweepRun]], None]) -> Found:
    """Try what a TPE sampler (Bergstra et al., NeurIPS 2011) asks for; ``run_all`` brings runs to their end.

    Nothing is kept of a search but its runs. An interrupted one is gone through again from its first trial: the
    sampler, of the same seed and told the same figures, asks for the same, and what was trained is found.
    """
    asked = sweep.recipe.search
    assert asked is not None
    study = _study(asked.seed)
    space = {name: _distribution(where) for name, where in asked.space.items()}
    trials: list[Trial] = []
    while len(trials) < asked.trials:
        some = [study.ask(space) for _ in range(min(_ASKED_AT_ONCE, asked.trials - len(trials)))]
        runs = [_runs(sweep, one.params) for one in some]
        # Two trials may ask for the same run.
        run_all(list({run.name: run for of_one in runs for run in of_one}.values()))
        for one, of_one in zip(some, runs, strict=True):
            dev = _dev(sweep, of_one)
            trials.append(Trial(one.params, dev))
            study.tell(one, dev, state=_failed() if dev is None else None)
    return Found(trials, max((trial for trial in trials if trial.dev is not None), key=_figure, default=None))


def trial_runs(recipe: Recipe, settings: dict[str, Any]) -> list[PlannedRun]:
    """Return the runs of a trial, one a seed: the settings that all runs share, with those of the trial over them."""
    return cross(recipe.train, {name: [value] for name, value in settings.items()}, {}, recipe.seeds)


def _runs(sweep: Sweep, settings: dict[str, Any]) -> list[SweepRun]:
    """Return the runs of a trial as they stand, none if its settings do not go together."""
    try:
        return sweep.look_at(trial_runs(sweep.recipe, settings), evaluate=False)
    except RagcunCacheError:
        return []


def _dev(sweep: Sweep, runs: Sequence[SweepRun]) -> float | None:
    heads = [sweep.head(run) for run in runs]
    figures = [head.provenance["metrics"][DEV_METRIC] for head in heads if head is not None]
    return mean(figures) if figures and len(figures) == len(runs) else None


def _figure(trial: Trial) -> float:
    return trial.dev if trial.dev is not None else float("-inf")


def _study(seed: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))


def _failed() -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _distribution(where: Range) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if where.log:
        return FloatDistribution(*where.log, log=True)
    if where.linear:
        return FloatDistribution(*where.linear)
    if where.integer:
        return IntDistribution(*where.integer)
    return CategoricalDistribution(where.choice or [])
