from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest
import typer
from typer.testing import CliRunner

from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep
from ragcun_cache.home import Home
from reproduction.__main__ import main
from reproduction.provenance import provenance
from reproduction.rows import MEAN, read_rows


@pytest.fixture
def write(plan_file: Path, cached_home: Home, tmp_path: Path) -> Callable[..., str]:
    """Call the command and return the page."""
    app = typer.Typer()
    app.command()(main)

    def call(*arguments: str) -> str:
        page = tmp_path / "docs" / "page.md"
        result = CliRunner().invoke(app, ["--plan", str(plan_file), "--page", str(page), *arguments])
        assert result.exit_code == 0, result.output
        return page.read_text()

    return call


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def line(page: str, start: str) -> list[str]:
    [found] = [one for one in page.splitlines() if one.startswith(f"| {start} |")]
    return [cell.strip() for cell in found.strip("|").split(" | ")]


def test_before_any_run_the_page_says_that_all_is_missing(write: Callable[..., str], tmp_path: Path) -> None:
    page = write()
    assert "3 published rows, as they really ran: OK 0, close 0, differs 0, missing 3." in page
    assert "supported by an ablation 0, not supported 0, open 2" in page
    assert "`slow, epochs=2`: 2 of 2 seeds are missing: run `make reproduce`" in page
    assert "There is no result yet." in page
    assert not (tmp_path / "docs" / "figures").exists()


def test_from_runs_to_the_page(
    write: Callable[..., str],
    plan_file: Path,
    carry_out: Callable[[Path], Sweep],
    cached_home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes = [plan_file.with_name(name) for name in ("recipe.yaml", "nulls.yaml")]
    for recipe in recipes:
        carry_out(recipe)
    page = write()
    rows = read_rows([load_recipe(recipe) for recipe in recipes], cached_home)
    slow = rows["slow, epochs=2"]

    beside = section(page, "Published and ours")
    cells = line(beside, "`slow, epochs=2`")
    assert cells[1:3] == ["as ran", "2"]
    for cell, name in zip(cells[3:], ("tiny", "other", MEAN), strict=False):
        assert cell.startswith(f"{slow.means(name).mean():.4f} ± {slow.means(name).std(ddof=1):.4f}<br>above ")
    assert line(beside, r"**Head \| one**")[1:] == [
        "published", "–", "0.5000", "0.4000", "0.4500", "–"
    ]  # fmt: skip
    assert line(beside, "`diverges`")[2:] == ["0 of 2", "–", "–", "–", "missing"]
    assert "fail" in line(beside, "`slow, epochs=1`")[-1]
    assert "Not quite the same." in beside

    causes = section(page, "What causes it")
    assert "### Slow: It has learnt nothing.\n\nIf so, `untrained` does not differ." in causes
    assert "upported**: " in causes
    assert "| at the epoch that is kept | `slow, epochs=2` | `untrained` |" in causes
    assert line(causes, "sd ÷ at start")[1:] == [f"{mean(slow.column('output_std_ratio')):.4g}", "1"]
    assert "`never run` is missing: run `make reproduce`." in causes
    assert "**Open**" in causes

    residual = section(page, "The predictor's residual")
    ours = mean(rows["slow, epochs=1"].column("output_std", 1))
    assert f"{ours / 0.02:.2f}" in line(residual, "epoch 1 | `output_std`")
    assert line(residual, "epoch 1 | `no_such_column`")[3] == "not measured"

    every = section(page, "All rows and ablations")
    assert line(every, "`raw encoder`")[3:5] == ["–", "–"]
    assert line(every, "`untrained`")[3] != "–"
    assert line(every, "`untrained`")[4] == "–"
    assert "p" in line(every, "`slow, epochs=1`")[4]

    missing = section(page, "What is missing")
    assert "- `diverges`: 2 of 2 seeds failed: " in missing
    assert "- `never run`: 2 of 2 seeds are missing: run `make reproduce`" in missing

    origin = section(page, "Where these figures come from")
    for fact in ("machine: ", "versions: ", "commit of training: ", "0-2: `untrained`, `the same again`", "float16"):
        assert fact in origin
    assert re.search(
        r"^- encoder: fake, fingerprint \w{16}: encoded by ragcun-cache, backend fake, ", origin, re.MULTILINE
    )
    assert "- trained on: tiny/train, 40 pairs (lejepa random 16d)\n" in origin
    assert ", model fake, encoded by ragcun-cache, backend fake, precision fp32" in origin
    # Rows that share their heads are counted once.
    assert "summed over 7 runs" in origin
    # So are the epochs that a run has from a longer one.
    both = {label: rows[label] for label in ("slow, epochs=1", "slow, epochs=2")}
    for row in both.values():
        for run in row.runs.values():
            for epoch in run.epochs:
                epoch["train_seconds"] *= 1e6
    training = sum(epoch["train_seconds"] for run in slow.runs.values() for epoch in run.epochs)
    assert f"{training:,.0f} training" in provenance(both, cached_home)

    for name in ("reproduction_seeds.svg", "reproduction_epochs.svg"):
        assert f"](figures/{name})" in page
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "docs" / "figures").iterdir()}
    assert write() == page
    assert {path.name: path.read_bytes() for path in (tmp_path / "docs" / "figures").iterdir()} == drawn

    monkeypatch.setattr("reproduction.__main__.draw_figures", lambda *_, **__: [])  # drawing takes the time
    fewer = write("--seeds", "0")
    assert line(section(fewer, "Published and ours"), "`slow, epochs=2`")[2] == "1"
    assert line(section(fewer, "Published and ours"), "`slow, epochs=2`")[-1] in ("close", "differs")
    more = write("--seeds", "0-4")
    assert line(section(more, "Published and ours"), "`slow, epochs=2`")[2] == "2 of 5"
    assert "`slow, epochs=2`: 3 of 5 seeds are missing" in more


def test_an_error_is_told_without_a_traceback(plan_file: Path, cached_home: Home, tmp_path: Path) -> None:
    plan_file.write_text(plan_file.read_text().replace("removed: never run", "removed: nothing"))
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--plan", str(plan_file), "--page", str(tmp_path / "page.md")])
    assert result.exit_code == 2
    assert "unknown run 'nothing'" in result.output
    assert not (tmp_path / "page.md").exists()
