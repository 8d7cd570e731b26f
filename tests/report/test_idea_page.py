"""Every block of docs/your_own_idea.md, in order: files are written, Python and commands are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragcun_cache.cli.main import app
from ragcun_cache.evaluation.leaderboard import build_leaderboards
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads import own as own_heads

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your_own_idea.md"


def blocks() -> Iterator[tuple[str | None, str, str]]:
    """Yield (file that the block is to be, or None; language; text)."""
    for name, language, text in re.findall(
        r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S
    ):
        yield name or None, language, text


def run_commands(text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    said = ""
    for line in text.splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
            continue
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ragcun-cache", line
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (line, done.output, done.exception)
        said += done.stdout
    return said


def test_every_block_runs(tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAGCUN_HOME", raising=False)
    monkeypatch.delenv("RAGCUN_COLLECTIONS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(own_heads, "_registered", {})
    monkeypatch.setattr(own_heads, "_loaded", {})
    shutil.copytree(tiny_encoder, "data/models/my-encoder")
    names: dict[str, object] = {}
    said = ""
    for file, language, text in blocks():
        if file is not None:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(text)
        elif language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            assert language == "sh", f"a block that is neither named nor run:\n{text}"
            said += run_commands(text, monkeypatch)
    assert "RAGCUN_HEADS" in os.environ
    assert "query_map identity 32d" in said and "uniform identity 32d" in said
    assert Path("data/report.html").stat().st_size > 100_000
    assert "centred" in Path("report.md").read_text()
    store = ResultStore(Path("data/results"))
    rows = {row.label for board in build_leaderboards(store.all(), store) for row in board.rows}
    assert {"raw encoder", "untrained random 32d"} < rows
    assert sum(label.startswith("query_map") for label in rows) == 4


def test_the_head_of_the_page_is_about_thirty_lines() -> None:
    (head,) = [text for file, _, text in blocks() if file == "ideas/query_map.py"]
    assert len(head.splitlines()) <= 33
