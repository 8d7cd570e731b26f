from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep
from ragcun_cache.errors import ConfigError
from ragcun_cache.home import Home
from reproduction.rows import MEAN, METRIC, RAW, Row, read_rows


def test_rows_are_done_missing_or_failed(
    plan_file: Path, carry_out: Callable[[Path], Sweep], cached_home: Home
) -> None:
    recipe_file, nulls_file = plan_file.with_name("recipe.yaml"), plan_file.with_name("nulls.yaml")
    sweep = carry_out(recipe_file)
    carry_out(nulls_file)
    rows = read_rows([load_recipe(recipe_file), load_recipe(nulls_file)], cached_home)
    assert list(rows) == [
        RAW, "slow, epochs=1", "slow, epochs=2", "diverges", "never run", "untrained", "the same again"
    ]  # fmt: skip
    assert {label: (row.n, len(row.asked), len(row.errors)) for label, row in rows.items()} == {
        RAW: (1, 1, 0),
        "slow, epochs=1": (2, 2, 0),
        "slow, epochs=2": (2, 2, 0),
        "diverges": (0, 2, 2),
        "never run": (0, 2, 0),
        "untrained": (3, 3, 0),
        # Its runs equal those before, so the sweep has them once; the row is there all the same.
        "the same again": (3, 3, 0),
    }
    assert "not a finite number" in rows["diverges"].errors[0]

    slow = rows["slow, epochs=2"]
    again = Sweep(load_recipe(recipe_file), cached_home)
    stored = [one for run in again.runs if run.planned.label == "slow, epochs=2, seed 1" for one in run.results]
    assert {one.setting.collection: one.metrics[METRIC] for one in stored} == pytest.approx(
        {name: slow.means(name)[1] for name in ("tiny", "other")}
    )
    assert slow.means(MEAN) == pytest.approx((slow.means("tiny") + slow.means("other")) / 2)
    assert slow.per_query()["tiny"] == pytest.approx(np.mean([run.scores["tiny"] for run in slow.runs.values()], 0))
    assert slow.column("output_std_ratio", 0) == [1.0, 1.0]
    assert slow.column("output_std_ratio") == slow.column("output_std_ratio", 2)
    assert slow.column("no such column") == slow.column("output_std_ratio", 7) == []
    assert sweep.runs[0].name != again.runs[2].name


def test_one_name_for_two_kinds_of_runs_is_refused(plan_file: Path, cached_home: Home) -> None:
    recipe, nulls = plan_file.with_name("recipe.yaml"), plan_file.with_name("nulls.yaml")
    nulls.write_text(nulls.read_text().replace("name: untrained", "name: never run"))
    with pytest.raises(ConfigError, match="two recipes call different runs 'never run'"):
        read_rows([load_recipe(recipe), load_recipe(nulls)], cached_home)


def test_recipes_may_share_a_row_and_its_seeds_add_up(plan_file: Path, cached_home: Home) -> None:
    nulls = plan_file.with_name("nulls.yaml")
    rows = read_rows([load_recipe(nulls, seeds=[0, 1]), load_recipe(nulls, seeds=[1, 4])], cached_home)
    assert rows["untrained"].asked == [0, 1, 4]


def test_alarms_are_counted_by_seed_and_unknown_where_no_head_says(
    plan_file: Path, carry_out: Callable[[Path], Sweep], cached_home: Home
) -> None:
    nulls = plan_file.with_name("nulls.yaml")
    carry_out(nulls)
    row = read_rows([load_recipe(nulls)], cached_home)["untrained"]
    heads = [run.head for run in row.runs.values()]
    for head in heads:
        assert head is not None
        head.provenance.pop("alarms", None)
    assert row.alarms() is None
    collapse, lost = ({"name": name, "epoch": 1, "text": "so"} for name in ("scale collapse", "lost alignment"))
    told = [[collapse], [], [collapse, lost]]
    runs = {
        seed: replace(run, head=replace(run.head, provenance={**run.head.provenance, "alarms": alarms}))
        for (seed, run), alarms in zip(row.runs.items(), told, strict=True)
        if run.head
    }
    assert Row(row.label, row.config, row.asked, runs).alarms() == {"scale collapse": 2, "lost alignment": 1}
