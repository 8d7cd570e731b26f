from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragcun_cache.ablation import workers
from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep, SweepRun, count, failures, to_do
from ragcun_cache.ablation.workers import Event
from ragcun_cache.cache import EmbeddingCache, open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.errors import CacheError, ConfigError, TrainingError
from ragcun_cache.heads import read_record
from ragcun_cache.home import Home
from ragcun_cache.role import Role


class Told:
    """Remembers all events, and may do something about one."""

    def __init__(self, act: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[tuple[str, str]] = []
        self.act = act

    def __call__(self, run: SweepRun, event: Event) -> None:
        self.events.append((event.kind, run.planned.label))
        self.act(event)

    def labels(self, kind: str) -> list[str]:
        return [label for told, label in self.events if told == kind]


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make it an error, once called, to start a process."""

    def forbid() -> None:
        def refuse(*_: Any) -> None:
            raise AssertionError("a process was started")

        monkeypatch.setattr(workers, "_Worker", refuse)

    return forbid


def weights(sweep: Sweep) -> dict[str, str]:
    return {run.planned.label: read_record(sweep.home.heads / str(run.name)).sha256 for run in sweep.runs}


@pytest.mark.usefixtures("threads")
def test_what_is_done_is_found_and_an_edited_recipe_runs_only_what_is_new(
    cached_home: Home, recipe_file: Callable[..., Path], no_process: Callable[[], None]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(grid={"lambda_isotropy": [0.5, 1.5]})), cached_home)
    assert count(sweep.runs) == {"done": 0, "failed": 0, "missing": 2}
    told = Told()
    sweep.carry_out(told, jobs=1)
    assert count(sweep.runs) == {"done": 2, "failed": 0, "missing": 0}
    assert told.labels("done") == ["lambda_isotropy=0.5, seed 0", "lambda_isotropy=1.5, seed 0"]
    assert len(told.labels("epoch")) == 2
    results = sweep.results()
    assert [(result.system.arch, result.setting.collection) for result in results] == [
        ("identity", "tiny"),
        ("identity", "other"),
        *[("lejepa", "tiny"), ("lejepa", "other")] * 2,
    ]
    wider = Sweep(load_recipe(recipe_file(grid={"lambda_isotropy": [0.5, 1.5, 2.5]})), cached_home)
    assert [run.state for run in wider.runs] == ["done", "done", "missing"]
    assert wider.record.folder != sweep.record.folder

    no_process()
    again = Sweep(load_recipe(recipe_file(grid={"lambda_isotropy": [0.5, 1.5]})), cached_home)
    again.carry_out(told := Told(), jobs=1)
    assert told.events == []
    assert [result.key for result in again.results()] == [result.key for result in results]


@pytest.mark.usefixtures("threads")
def test_a_trained_head_that_was_not_evaluated_is_only_evaluated(
    cached_home: Home, recipe_file: Callable[..., Path]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(evaluate=["tiny"])), cached_home)
    sweep.carry_out(Told(), jobs=1)
    before = {path: path.stat().st_mtime_ns for path in cached_home.heads.rglob("*.safetensors")}
    wider = Sweep(load_recipe(recipe_file()), cached_home)
    assert count(wider.runs)["missing"] == 1
    wider.carry_out(told := Told(), jobs=1)
    assert count(wider.runs)["done"] == 1
    assert told.labels("epoch") == []
    assert {path: path.stat().st_mtime_ns for path in cached_home.heads.rglob("*.safetensors")} == before


@pytest.mark.usefixtures("threads")
def test_a_failing_run_is_written_down_and_the_rest_goes_on(
    cached_home: Home, recipe_file: Callable[..., Path], no_process: Callable[[], None]
) -> None:
    runs = [
        {"name": "diverges", "learning_rate": 1e38, "epochs": 3},
        {"name": "does not fit", "init": "identity", "out_dim": 8},
        {"name": "sound"},
        {"name": "no such cache", "dataset": "nowhere"},
    ]
    path = recipe_file(runs=runs)
    sweep = Sweep(load_recipe(path), cached_home)
    assert [run.state for run in sweep.runs] == ["missing", "failed", "missing", "failed"]
    sweep.carry_out(Told(), jobs=1)
    assert [run.state for run in sweep.runs] == ["failed", "failed", "done", "failed"]
    errors = dict(failures(sweep.runs))
    assert "not a finite number" in errors["diverges, seed 0"]
    assert "keeps the encoder's dimension" in errors["does not fit, seed 0"]
    assert "nowhere" in errors["no such cache, seed 0"]
    assert len(sweep.results()) == 4  # raw and one head, on two collections

    again = Sweep(load_recipe(path), cached_home)
    assert [run.state for run in again.runs] == ["failed", "failed", "done", "failed"]
    assert dict(failures(again.runs)) == errors
    assert [run.planned.label for run in to_do(again.runs, retry_failed=True)] == ["diverges, seed 0"]
    no_process()
    again.carry_out(Told(), jobs=1)
    with pytest.raises(AssertionError, match="a process was started"):
        again.carry_out(Told(), jobs=1, retry_failed=True)
    # What is tried again is no longer known as failed.
    assert count(Sweep(load_recipe(path), cached_home).runs)["missing"] == 1


@pytest.mark.usefixtures("threads")
def test_heads_are_not_evaluated_on_the_split_that_they_were_trained_on(
    cached_home: Home, recipe_file: Callable[..., Path]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(evaluate=["tiny"], split="train")), cached_home)
    sweep.carry_out(Told(), jobs=1)
    ((_, error),) = failures(sweep.runs)
    assert "trained or chosen by the train split of tiny" in error
    assert count(Sweep(sweep.recipe, cached_home).runs) == {"done": 0, "failed": 1, "missing": 0}
    elsewhere = Sweep(load_recipe(recipe_file(evaluate=["other"], split="train")), cached_home)
    elsewhere.carry_out(Told(), jobs=1)
    assert count(elsewhere.runs) == {"done": 1, "failed": 0, "missing": 0}


def test_a_process_that_dies_takes_only_its_run_with_it(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    def kill(event: Event) -> None:
        if event.kind == "started" and event.number == 0:
            (child,) = multiprocessing.active_children()
            child.kill()

    sweep = Sweep(load_recipe(recipe_file(seeds="0-1")), cached_home)
    sweep.carry_out(Told(kill), jobs=1)
    assert [run.state for run in sweep.runs] == ["failed", "done"]
    assert "SIGKILL" in dict(failures(sweep.runs))["lejepa, seed 0"]
    assert multiprocessing.active_children() == []


def test_two_processes_make_the_heads_of_one(
    cached_home: Home, recipe_file: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    recipe = load_recipe(recipe_file(train={"epochs": 2}, grid={"arch": ["lejepa", "isotropy"]}, seeds="0-1"))
    two = Sweep(recipe, cached_home)
    two.carry_out(told := Told(), jobs=2)
    assert [kind for kind, _ in told.events[:2]] == ["started", "started"]
    other_home = Home(cached_home.root.parent / "second")
    other_home.root.mkdir()
    for shared in ("caches", "collections"):
        (other_home.root / shared).symlink_to(cached_home.root / shared)
    request.getfixturevalue("threads")
    one = Sweep(recipe, other_home)
    one.carry_out(Told(), jobs=1)
    assert weights(two) == weights(one)
    assert [(result.key, result.metrics) for result in two.results()] == [
        (result.key, result.metrics) for result in one.results()
    ]


def test_an_interruption_ends_all_processes_and_the_same_call_goes_on(
    cached_home: Home, recipe_file: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "epoch":
            raise KeyboardInterrupt

    recipe = load_recipe(recipe_file(train={"epochs": 2}))
    sweep = Sweep(recipe, cached_home)
    with pytest.raises(KeyboardInterrupt):
        sweep.carry_out(Told(interrupt), jobs=1)
    assert multiprocessing.active_children() == []
    again = Sweep(recipe, cached_home)
    assert [run.state for run in again.runs] == ["missing"]
    request.getfixturevalue("threads")
    again.carry_out(Told(), jobs=1)
    assert [run.state for run in again.runs] == ["done"]


def test_a_recipe_of_which_nothing_can_begin_is_refused(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    for content, error, message in [
        ({"train": {"dataset": "nowhere"}}, Exception, "nowhere"),
        ({"train": {"train": "test"}}, TrainingError, "for evaluation only"),
        ({"train": {"dev": "test"}}, TrainingError, "for evaluation only"),
        ({"train": {"encoder": "0" * 16}}, CacheError, "0" * 16),
        ({"evaluate": ["nowhere"]}, Exception, "nowhere"),
        ({"split": "tset"}, Exception, "'test'"),
    ]:
        with pytest.raises(error, match=message):
            Sweep(load_recipe(recipe_file(**content)), cached_home)
    assert not cached_home.ablations.exists()


@pytest.mark.usefixtures("threads")
def test_code_that_changes_under_a_sweep_is_noticed(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    sweep = Sweep(load_recipe(recipe_file()), cached_home)
    (run,) = sweep.runs
    run.name = f"{str(run.name)[:-8]}00000000"
    sweep.carry_out(Told(), jobs=1)
    assert "was changed while the recipe ran" in dict(failures(sweep.runs))[run.planned.label]
    assert not cached_home.heads.exists()


def test_a_recipe_is_run_by_one_process_at_a_time(cached_home: Home, recipe_file: Callable[..., Path]) -> None:
    sweep = Sweep(load_recipe(recipe_file()), cached_home)
    with sweep.record.alone(), pytest.raises(ConfigError, match="being run by another process"):
        sweep.carry_out(Told(), jobs=1)


@pytest.mark.usefixtures("threads")
def test_runs_of_fewer_epochs_are_left_on_the_way_of_the_longest(
    cached_home: Home, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragcun_cache.training import run

    trained: list[int] = []
    train = run._train
    monkeypatch.setattr(run, "_train", lambda config, *rest: (trained.append(config.epochs), train(config, *rest))[1])
    sweep = Sweep(load_recipe(recipe_file(grid={"epochs": [1, 3, 2], "schedule": ["constant", "cosine"]})), cached_home)
    told = Told()
    sweep.carry_out(told, jobs=1)
    assert count(sweep.runs) == {"done": 6, "failed": 0, "missing": 0}
    assert sorted(trained) == [1, 2, 3, 3]  # with a cosine each length is another training
    assert sorted(told.labels("done")) == sorted(run.planned.label for run in sweep.runs)
    assert len({read_record(cached_home.heads / str(run.name)).sha256 for run in sweep.runs}) == 6


@pytest.mark.usefixtures("threads")
def test_heads_are_evaluated_on_the_prompts_that_they_were_trained_on(
    cached_home: Home, recipe_file: Callable[..., Path], cache_of: Callable[..., Path]
) -> None:
    collection = find_collection("tiny", cached_home)
    pair = open_pair(cached_home.caches, collection)
    content = collection.content_sha256(Role.QUERY)
    rows = pair.query.ids, pair.query.array().astype(np.float16)
    spec = {"prompt": "search: "}
    other = cache_of(cached_home.caches, "tiny", Role.QUERY, *rows, content_sha256=content, spec=spec)
    fingerprint = EmbeddingCache(other).fingerprint
    sweep = Sweep(load_recipe(recipe_file(train={"encoder": fingerprint}, evaluate=["tiny"])), cached_home)
    sweep.carry_out(Told(), jobs=1)
    assert count(sweep.runs)["done"] == 1
    assert {result.setting.query_fingerprint for result in sweep.results()} == {fingerprint}
