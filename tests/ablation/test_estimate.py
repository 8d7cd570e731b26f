from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ragcun_cache.ablation import estimate as module
from ragcun_cache.ablation.estimate import _known_paces, _Pace, estimate
from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep
from ragcun_cache.heads import read_record
from ragcun_cache.home import Home

EPOCH_STEPS = 5
"""40 pairs in batches of 8."""


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how long a step and a measurement take, in place of timing them."""

    def say(*, step: float = 0.0, measure: float = 0.0) -> None:
        monkeypatch.setattr(module, "_probe", lambda *_: _Pace(step, measure))

    return say


def seconds(sweep: Sweep, *, jobs: int) -> float:
    return estimate(sweep, sweep.runs, jobs=jobs, threads=1).seconds


def test_epochs_that_runs_share_are_counted_once_and_follow_each_other(
    cached_home: Home, recipe_file: Callable[..., Path], pace: Callable[..., None]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(grid={"epochs": [1, 2, 4]}, seeds="0-1")), cached_home)
    pace(step=1.0)
    one = 4 * EPOCH_STEPS
    assert [seconds(sweep, jobs=jobs) for jobs in (1, 2, 6)] == [2 * one, one, one]
    # Each of the six is evaluated on the passages of both collections, twice those that an epoch is measured on.
    pace(measure=1.0)
    assert seconds(sweep, jobs=1) == 2 * (4 + 1) + 6 * 2
    found = estimate(sweep, sweep.runs, jobs=1, threads=1)
    single = estimate(sweep, sweep.runs[:1], jobs=1, threads=1)
    assert (found.runs, found.bytes) == (6, 6 * single.bytes)


def test_what_a_trained_longer_run_has_not_left_is_still_to_be_trained(
    cached_home: Home, recipe_file: Callable[..., Path], pace: Callable[..., None]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(grid={"epochs": [1, 2]})), cached_home)
    longer = sweep.runs[1]
    sweep.bench.carry_out(str(longer.name), longer.planned.config, evaluate=False, on_epoch=lambda row: None)
    pace(step=1.0)
    for path in (cached_home.heads / str(longer.name)).glob("head.json"):
        # Timed by other threads than asked for, so that the pace is that of above.
        path.write_text(path.read_text().replace('"threads"', '"threads_then"'))
    assert seconds(sweep, jobs=1) == EPOCH_STEPS


def test_runs_that_share_no_epoch_go_on_side_by_side(
    cached_home: Home, recipe_file: Callable[..., Path], pace: Callable[..., None]
) -> None:
    sweep = Sweep(load_recipe(recipe_file(grid={"learning_rate": [1e-4, 2e-4, 3e-4]})), cached_home)
    pace(step=1.0)
    assert [seconds(sweep, jobs=jobs) for jobs in (1, 2, 9)] == [3 * EPOCH_STEPS, 1.5 * EPOCH_STEPS, EPOCH_STEPS]


def test_heads_on_vectors_of_other_dimensions_have_another_pace(
    cached_home: Home, recipe_file: Callable[..., Path]
) -> None:
    sweep = Sweep(load_recipe(recipe_file()), cached_home)
    (run,) = sweep.runs
    sweep.bench.carry_out(str(run.name), run.planned.config, evaluate=False, on_epoch=lambda row: None)
    narrow = read_record(cached_home.heads / str(run.name))
    wide = replace(narrow, config=narrow.config.model_copy(update={"in_dim": 48}))
    assert len(_known_paces([narrow, narrow])) == 1
    assert len(_known_paces([narrow, wide])) == 2
