"""A sweep that is killed loses no run, repeats none, and ends with the table of one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep, count
from ragcun_cache.evaluation.leaderboard import as_json, build_leaderboards
from ragcun_cache.heads import list_heads
from ragcun_cache.home import Home

RUNS = 48
VARIANTS = [
    {"name": "isotropy", "arch": "isotropy"},
    {"name": "lejepa"},
    {"name": "lejepa without EMA", "ema": None},
    {"name": "lejepa from identity", "init": "identity", "isotropy": "scale_free"},
]


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ragcun_cache", "ablate", str(path), "--jobs", "2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(home: Home) -> dict[str, tuple[int, int, str]]:
    """Inode, time of writing and hash of every head whose training came to its end."""
    heads = [record for record in list_heads(home.heads) if record.complete]
    status = {record.name: (record.folder / "head.json").stat() for record in heads}
    return {
        record.name: (status[record.name].st_ino, status[record.name].st_mtime_ns, record.sha256) for record in heads
    }


def kill_after(process: subprocess.Popen[str], home: Home, heads: int, *, group: bool) -> None:
    """Kill the process, or it and its workers at one blow, once that many heads are trained."""
    while len(finished(home)) < heads:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
    process.communicate()  # returns once the workers, which hold the same pipes, have ended too
    assert process.returncode == -signal.SIGKILL


@pytest.mark.crash
@pytest.mark.timeout(900)
def test_killed_twice(cached_home: Home, recipe_file: Callable[..., Path], request: pytest.FixtureRequest) -> None:
    content = {"runs": VARIANTS, "grid": {"lambda_isotropy": [0.5, 1.0, 1.5]}, "seeds": "0-3", "evaluate": "other"}
    path = recipe_file(train={"epochs": 2}, **content)
    assert len(Sweep(load_recipe(path), cached_home).runs) == RUNS
    kept: dict[str, tuple[int, int, str]] = {}
    for heads, group in ((7, False), (25, True)):
        kill_after(start(path), cached_home, heads, group=group)
        before, kept = kept, finished(cached_home)
        assert before.items() <= kept.items()
        assert heads <= len(kept) < RUNS
    last = start(path)
    stdout, stderr = last.communicate()
    assert last.returncode == 0, stderr
    found = json.loads(stdout)
    assert [run["state"] for run in found["runs"]] == ["done"] * RUNS
    heads = finished(cached_home)
    assert kept.items() <= heads.items()
    assert sorted(heads) == sorted(run["head"] for run in found["runs"])
    assert len(list((cached_home.results / "runs").glob("[!.]*"))) == RUNS + 1  # and the raw encoder's
    assert not [path for path in cached_home.heads.rglob("*") if ".partial-" in path.name]

    other_home = Home(cached_home.root.parent / "second")
    other_home.root.mkdir()
    for shared in ("caches", "collections"):
        (other_home.root / shared).symlink_to(cached_home.root / shared)
    request.getfixturevalue("threads")
    whole = Sweep(load_recipe(path), other_home)
    whole.carry_out(lambda run, event: None, jobs=1)
    assert count(whole.runs)["done"] == RUNS
    assert {record.name: record.sha256 for record in list_heads(other_home.heads)} == {
        name: sha256 for name, (_, _, sha256) in heads.items()
    }
    boards = [as_json(board) for board in build_leaderboards(whole.results(), whole.bench.store)]
    assert found["leaderboards"] == json.loads(json.dumps(boards))
