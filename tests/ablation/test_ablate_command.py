from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner, Result

from ragcun_cache.cache import list_caches
from ragcun_cache.cli.main import app
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.errors import ConfigError
from ragcun_cache.home import Home
from ragcun_cache.role import Role

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ablate(cached_home: Home) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["ablate", *map(str, arguments)], catch_exceptions=True)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(
    ablate: Callable[..., Result], recipe_file: Callable[..., Path], cached_home: Home
) -> None:
    path = recipe_file(grid={"arch": ["untrained", "lejepa"]}, seeds="0-1")
    before = sorted(cached_home.root.rglob("*"))
    shown = ablate(path, "--dry-run")
    assert shown.exit_code == 0
    assert "4 runs: 0 done, 0 failed, 4 missing; evaluated on tiny, other" in shown.stdout
    assert "4 of them timed by a few steps now" in shown.stdout
    plan = json.loads(ablate(path, "--dry-run", "--json", "--seeds", "5").stdout)
    assert [(run["label"], run["state"]) for run in plan["runs"]] == [
        ("arch=untrained, seed 5", "missing"),
        ("arch=lejepa, seed 5", "missing"),
    ]
    assert plan["to_do"]["runs"] == 2
    # Two layers, 16 to 32 to 16, with biases, in float32, twice.
    assert plan["to_do"]["bytes"] == 2 * 4 * (16 * 32 + 32 + 32 * 16 + 16)
    assert plan["to_do"]["seconds"] > 0
    assert sorted(cached_home.root.rglob("*")) == before


def test_of_several_encoders_one_is_named_as_the_error_says(
    ablate: Callable[..., Result], recipe_file: Callable[..., Path], cached_home: Home, cache_of: Callable[..., Path]
) -> None:
    for name in ("tiny", "other"):
        collection = find_collection(name, cached_home)
        for role, ids in ((Role.QUERY, [f"q{row}" for row in range(70)]), (Role.PASSAGE, ["p0", "p1"])):
            content, vectors_nd = collection.content_sha256(role), np.ones((len(ids), 16), np.float16)
            cache_of(cached_home.caches, name, role, ids, vectors_nd, content_sha256=content, spec={"model_id": "two"})
    path = recipe_file()
    assert "--encoder FINGERPRINT" in str(ablate(path, "--dry-run").exception)
    encoders = {manifest.encoder for _, manifest in list_caches(cached_home.caches)}
    for encoder in encoders:
        assert ablate(path, "--dry-run", "--encoder", encoder).exit_code == 0
    assert len(encoders) == 2


@pytest.mark.usefixtures("threads")
def test_from_yaml_to_a_tested_row_and_the_dry_run_afterwards(
    ablate: Callable[..., Result], recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    runs = [{"name": "sound"}, {"name": "diverges", "learning_rate": 1e38, "epochs": 3}]
    path = recipe_file(runs=runs, evaluate="other")
    shown = ablate(path, "--json", "--jobs", 1, "--markdown", tmp_path / "table.md")
    assert shown.exit_code == 1
    content = json.loads(shown.stdout)
    assert [run["state"] for run in content["runs"]] == ["done", "failed"]
    (board,) = content["leaderboards"]
    assert [row["label"] for row in board["rows"]] == ["raw encoder", "lejepa random 16d"]
    assert 0 < board["rows"][1]["cells"]["other/test"]["against_raw"]["p_value"] <= 1
    assert "failed: diverges, seed 0\n  a loss is not a finite number" in shown.stderr
    assert "1 of 2 runs failed; --retry-failed" in shown.stderr
    page = (tmp_path / "table.md").read_text()
    assert page.startswith("# Results of the recipe `idea`\n") and "| raw encoder |" in page
    assert re.search(
        r"^- encoder: fake, fingerprint \w{16}: encoded by ragcun-cache, backend fake, ", page, re.MULTILINE
    )
    assert "\n- trained or chosen by: tiny/train, 40 pairs (lejepa random 16d)\n" in page

    curves = tmp_path / "curves"
    for _ in range(2):
        assert ablate(path, "--tensorboard", curves).exit_code == 1
        (events,) = curves.rglob("events.*")
    loaded = EventAccumulator(str(events)).Reload()
    assert [event.step for event in loaded.Scalars("dev_ndcg@10")] == [0, 1]
    assert [event.step for event in loaded.Scalars("loss")] == [1]

    planned = ablate(path, "--dry-run")
    assert "done    sound, seed 0\nfailed  diverges, seed 0" in planned.stdout
    assert "to do: 0 runs, about 0 s" in planned.stdout
    retried = json.loads(ablate(path, "--dry-run", "--json", "--retry-failed", "--jobs", 1).stdout)
    # Both are of one kind, and the sound one has been timed.
    assert (retried["to_do"]["runs"], retried["to_do"]["probed"]) == (1, 0)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_writes_the_page_of_results_by_its_recipe() -> None:
    asked = ["make", "--dry-run", "results", "MSMARCO=some-pairs", "VENV=env"]
    # Inside `make test` the outer make's flags and variables would be this one's too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    made = subprocess.run(asked, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    lines = made.stdout.splitlines()
    recipe, page = "pipelines/baselines.yaml", "docs/results.md"
    *arguments, last = shlex.split(lines[-1])
    expected = ["env/bin/ragcun-cache", "ablate", recipe, "--set", "dataset=some-pairs", "--markdown"]
    assert (arguments, last) == (expected, page)
    assert f"`ragcun-cache ablate {recipe} --markdown {page}`" in (ROOT / recipe).read_text()


def test_a_mistake_in_the_recipe_is_named_before_anything_is_done(
    ablate: Callable[..., Result], recipe_file: Callable[..., Path], cached_home: Home
) -> None:
    found = ablate(recipe_file(grid={"lambda_isotrpy": [1]}))
    assert isinstance(found.exception, ConfigError)
    assert "did you mean 'lambda_isotropy'?" in str(found.exception)
    assert not cached_home.heads.exists()
