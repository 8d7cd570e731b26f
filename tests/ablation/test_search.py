from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ragcun_cache.ablation import search
from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep, SweepRun
from ragcun_cache.ablation.workers import Event
from ragcun_cache.cli.main import app
from ragcun_cache.errors import ConfigError, EvaluationError, TrainingError
from ragcun_cache.evaluation.candidates import describe_head
from ragcun_cache.heads import list_heads
from ragcun_cache.home import Home

pytestmark = pytest.mark.usefixtures("threads")

SEARCH: dict[str, Any] = {
    "trials": 6,
    "space": {"learning_rate": {"log": [1e-5, 1e-1]}, "lambda_isotropy": {"choice": [0.5, 1.5]}},
}


def silent(run: SweepRun, event: Event) -> None:
    pass


def test_the_best_on_dev_is_evaluated_and_no_other_trial(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    sweep = Sweep(load_recipe(recipe_file(search=SEARCH, seeds="0-1", evaluate="other")), cached_home)
    sweep.carry_out(silent, jobs=1)
    assert sweep.found is not None
    assert sweep.found.best is not None
    assert len(sweep.found.trials) == 6
    assert all(1e-5 <= trial.settings["learning_rate"] <= 1e-1 for trial in sweep.found.trials)
    assert sweep.found.best.dev == max(trial.dev for trial in sweep.found.trials if trial.dev is not None)
    # The recipe's own run and the best trial's, each of two seeds, and raw.
    assert len(sweep.results()) == len(list((cached_home.results / "runs").glob("[!.]*"))) == 5
    rates = {run.planned.config.learning_rate for run in sweep.runs}
    assert rates == {5e-4, sweep.found.best.settings["learning_rate"]}
    assert {run.state for run in sweep.runs} == {"done"}
    kept = json.loads((sweep.record.folder / "recipe.json").read_bytes())
    assert [run["head"] for run in kept["runs"]] == [run.name for run in sweep.runs]
    by_name = {record.name: record.provenance["metrics"]["dev_ndcg@10"] for record in list_heads(cached_home.heads)}
    best = [by_name[str(run.name)] for run in sweep.runs if run.planned.config.learning_rate != 5e-4]
    assert sum(best) / 2 == sweep.found.best.dev


def test_an_interrupted_search_asks_for_the_same_and_repeats_nothing(
    cached_home: Home, recipe_file: Callable[..., Path]
) -> None:
    ended = 0

    def interrupt(run: SweepRun, event: Event) -> None:
        nonlocal ended
        ended += event.kind == "done"
        if ended == 6:
            raise KeyboardInterrupt

    recipe = load_recipe(recipe_file(search={**SEARCH, "trials": 9}))
    with pytest.raises(KeyboardInterrupt):
        Sweep(recipe, cached_home).carry_out(interrupt, jobs=1)
    before = {record.name for record in list_heads(cached_home.heads) if record.complete}
    assert len(before) >= 6
    started: list[str] = []
    resumed = Sweep(recipe, cached_home)
    resumed.carry_out(lambda run, event: started.append(str(run.name)) if event.kind == "started" else None, jobs=1)
    best = resumed.found and resumed.found.best
    # Of what was trained before, only the best is taken up again: to be evaluated.
    assert {name for name in started if name in before} <= {run.name for run in resumed.runs}
    assert best is not None

    fresh_home = Home(cached_home.root.parent / "second")
    fresh_home.root.mkdir()
    for shared in ("caches", "collections"):
        (fresh_home.root / shared).symlink_to(cached_home.root / shared)
    whole = Sweep(recipe, fresh_home)
    whole.carry_out(silent, jobs=1)
    assert whole.found == resumed.found


def test_a_trial_that_fails_is_passed_over(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    wanted = {"trials": 5, "space": {"learning_rate": {"choice": [1e38, 1e-3]}}}
    path = recipe_file(search=wanted, train={"epochs": 3})
    shown = CliRunner().invoke(app, ["ablate", str(path), "--jobs", "1", "--json"])
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)["search"]
    assert {trial["settings"]["learning_rate"]: trial["dev"] is None for trial in found["trials"]} == {
        1e38: True,
        1e-3: False,
    }
    assert found["best"]["settings"] == {"learning_rate": 1e-3}
    assert "search: 5 trials, " in shown.stderr
    planned = CliRunner().invoke(app, ["ablate", str(path), "--dry-run"])
    assert "a search of up to 5 runs" in planned.stdout


@pytest.mark.parametrize(
    ("split", "dev_file", "evaluate", "refused"),
    [
        ("dev", True, ["other", "tiny"], True),
        ("dev", True, ["other"], False),
        ("train", False, ["tiny"], True),
        (None, True, ["tiny"], False),
    ],
)
def test_a_search_is_not_evaluated_on_the_split_that_it_searches_by(
    cached_home: Home,
    recipe_file: Callable[..., Path],
    split: str | None,
    dev_file: bool,
    evaluate: list[str],
    refused: bool,
) -> None:
    if not dev_file:
        # Dev queries are then cut from train, of which an untrained head knows nothing else.
        (cached_home.collections / "tiny" / "qrels" / "dev.tsv").unlink()
    wanted = {"trials": 2, "space": {"out_dim": {"choice": [4, 8]}}}
    recipe = load_recipe(recipe_file(train={"arch": "untrained"}, search=wanted, evaluate=evaluate, split=split))
    if not refused:
        Sweep(recipe, cached_home)
        return
    with pytest.raises(EvaluationError, match=f"the search was trained or chosen by the {split} split of tiny"):
        Sweep(recipe, cached_home)


@pytest.mark.parametrize("arch", ["lejepa", "untrained"])
def test_what_a_search_chose_knows_the_dev_split_that_it_was_chosen_by(
    cached_home: Home, recipe_file: Callable[..., Path], arch: str
) -> None:
    wanted = {"trials": 4, "space": {"out_dim": {"choice": [4, 8, 12]}}}
    path = recipe_file(train={"arch": arch}, search=wanted, evaluate=["tiny"])
    for _ in range(2):  # What is found again is still marked.
        sweep = Sweep(load_recipe(path), cached_home)
        sweep.carry_out(silent, jobs=1)
        assert {run.state for run in sweep.runs} == {"done"}
    assert sweep.found is not None
    assert sweep.found.best is not None
    records = {record.config.out_dim: record for record in list_heads(cached_home.heads)}
    best = records.pop(sweep.found.best.settings["out_dim"])
    assert best.provenance["chosen_by_search"] == {"recipe": "idea", "trials": 4}
    for record in (best, *records.values()):
        known = {(one.collection, one.split) for one in describe_head(record, cached_home).trained_on}
        trained = {("tiny", "train")} if arch == "lejepa" else set()
        assert known == (trained | {("tiny", "dev")} if record is best else trained)
    assert records, "other trials are left to compare with"


def test_without_dev_queries_there_is_no_search(
    cached_home: Home, recipe_file: Callable[..., Path], tiny_collection: Callable[..., Path]
) -> None:
    # One train query leaves none to set apart.
    (cached_home.collections / "tiny" / "qrels" / "dev.tsv").unlink()
    (cached_home.collections / "tiny" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tp0\t1\n")
    with pytest.raises(TrainingError, match="no dev query to search by"):
        Sweep(load_recipe(recipe_file(search=SEARCH)), cached_home)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"dataset": {"choice": ["tiny", "other"]}}, r"dataset cannot be searched(.|\n)*line"),
        ({"dev": {"choice": ["dev", 0.1]}}, "dev cannot be searched"),
        ({"ema": {"linear": [0.5, 1.5]}}, r"ema is out of range(.|\n)*line"),
        ({"epochs": {"integer": [1.5, 2]}}, r"search.space.epochs.integer.0 cannot be used"),
        ({"epochs": {"integer": [3, 2]}}, r"a lower and a higher bound"),
    ],
)
def test_spaces_that_are_refused(recipe_file: Callable[..., Path], space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file(search={"trials": 3, "space": space}))


def test_optuna_is_asked_for_by_name(
    cached_home: Home, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs optuna(.|\n)*ragcun-cache\[search\]"):
        Sweep(load_recipe(recipe_file(search=SEARCH)), cached_home)
