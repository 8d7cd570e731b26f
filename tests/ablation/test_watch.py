from __future__ import annotations

import sys
from typing import Any

import pytest
from rich.console import Console

from ragcun_cache.ablation.grid import PlannedRun
from ragcun_cache.ablation.sweep import SweepRun
from ragcun_cache.ablation.watch import watching
from ragcun_cache.ablation.workers import Event
from ragcun_cache.training.config import make_config

ROW: dict[str, Any] = {"epoch": 2, "loss": 0.125, "dev_ndcg@10": 0.34567}


def run(label: str) -> SweepRun:
    return SweepRun(PlannedRun(label, make_config({"dataset": "x"})), label, "missing")


def test_a_line_for_each_run_that_ended(capsys: pytest.CaptureFixture[str]) -> None:
    sound, bad = run("sound"), run("bad")
    with watching(3) as watch:
        for one in (sound, bad):
            watch(one, Event(0, "started"))
        watch(sound, Event(0, "epoch", ROW, 1.0))
        watch(bad, Event(1, "failed", seconds=2.0, error="too hot\n  where: here"))
        watch(sound, Event(0, "done", ROW, 3.0))
    assert capsys.readouterr().err.splitlines() == [
        "1/3 bad: failed: too hot, 2.0 s",
        "2/3 sound: epoch 2, loss 0.125, dev NDCG@10 0.3457, 3.0 s",
    ]


def test_a_table_that_lives_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    runs = [run(f"run {number}") for number in range(20)]
    with watching(20) as watch:
        for number, one in enumerate(runs[:18]):
            watch(one, Event(number, "started"))
            watch(one, Event(number, "failed" if number == 17 else "done", ROW, 1.0))
        watch(runs[18], Event(18, "started"))
        watch(runs[18], Event(18, "epoch", ROW, 1.0))
        console = Console(width=100)
        with console.capture() as drawn:
            console.print(watch.__self__.table())  # type: ignore[attr-defined]
    table = drawn.get()
    assert "17 done, 1 failed, of 20" in table
    # The latest of those that ended, then what is running.
    assert [f"run {number} " in table for number in (5, 6, 17, 18, 19)] == [False, True, True, True, False]
    assert "running" in table
    assert "0.3457" in table
    assert "done" in capsys.readouterr().err
