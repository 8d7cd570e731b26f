from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import cache_read
from benchmarks.__main__ import main
from benchmarks.alone import peak_bytes, run_alone
from benchmarks.page import read_sections, write_sections


@pytest.fixture
def command(home: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    monkeypatch.setenv("RAGCUN_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(cache_read.run, "__kwdefaults__", {"rows": 300, "gathered": 20})
    app = typer.Typer()
    app.command()(main)
    return app


def test_a_benchmark_writes_its_section_and_leaves_no_file(command: typer.Typer, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    write_sections(page, {"cache_read": "old", "train": "kept"})
    result = CliRunner().invoke(command, ["cache_read", "--page", str(page)])
    assert result.exit_code == 0, result.output
    sections = read_sections(page)
    assert sections["train"] == "kept"
    assert "| cache, memmap |" in sections["cache_read"]
    assert all(
        fact in sections["cache_read"] for fact in ("cores", "load average", "meanwhile", "numpy", "commit", " UTC")
    )
    assert list((tmp_path / "data").iterdir()) == []


def test_an_unknown_benchmark_is_named_before_anything_runs(command: typer.Typer, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    result = CliRunner().invoke(command, ["cache_read", "cache_raed", "--page", str(page)])
    assert result.exit_code == 2
    assert "cache_read" in result.output
    assert not page.exists()


def test_the_peak_is_that_of_the_function_not_of_who_calls_it() -> None:
    held = np.ones(300 << 20, np.uint8)
    small = run_alone(exec, "x = b'1' * (1 << 20)")
    large = run_alone(exec, "x = b'1' * (200 << 20)")
    assert peak_bytes() > held.nbytes > small.peak_bytes
    assert large.peak_bytes - small.peak_bytes > 150 << 20
