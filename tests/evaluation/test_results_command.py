from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result as Outcome
from typer.testing import CliRunner

from ragcun_cache.cli.results import app
from ragcun_cache.errors import ConfigError, EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.metrics import METRICS, QueryScores
from ragcun_cache.evaluation.results import Result, Setting
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.home import Home


def run(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def stored(home: Home, monkeypatch: pytest.MonkeyPatch) -> Result:
    import numpy as np

    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    setting = Setting(
        collection="a", sample_of=None, split="test", encoder="e", model="model", query_fingerprint="q",
        query_content_sha256="c", passage_fingerprint="p", passage_content_sha256="c", qrels_sha256="r",
        config=EvalConfig(split="test"),
    )  # fmt: skip
    result = Result(
        setting=setting, system=raw_head(8), metrics=dict.fromkeys(METRICS, 1 / 3), ndcg_identical_kept=None,
        counts=Counts(1, 0, 0, 0, 0), passages=9, in_base_training=False, seconds=1.0,
        date="2026-01-01T00:00:00+00:00", versions={}, machine={}, commit=None,
    )  # fmt: skip
    ResultStore(home.results).save(result, QueryScores(["q0"], dict.fromkeys(METRICS, np.array([1 / 3]))))
    return result


def test_they_are_listed(stored: Result) -> None:
    assert f"a/test  identity  ndcg@10 0.3333  2026-01-01T00:00:00+00:00  {stored.key}" in run("ls").stdout
    (line,) = json.loads(run("ls", "--json").stdout)
    assert (line["key"], line["ndcg@10"]) == (stored.key, 1 / 3)


@pytest.mark.parametrize("to", ["csv", "json", "parquet"])
def test_they_are_exported_at_full_precision(stored: Result, tmp_path: Path, to: str) -> None:
    file = tmp_path / f"results.{to}"
    assert "1 results written" in run("export", "--to", to, str(file)).stdout
    if to == "json":
        (row,) = json.loads(file.read_text())
        assert Result.model_validate({name: row[name] for name in Result.model_fields}) == stored
    else:
        frame = pl.read_csv(file) if to == "csv" else pl.read_parquet(file)
        assert frame["ndcg@10"].to_list() == [1 / 3]
        assert frame["key"].to_list() == [stored.key]
    with pytest.raises(ConfigError, match="there already"):
        run("export", "--to", to, str(file))
    run("export", "--to", to, str(file), "--force")


def test_what_cannot_be_done_is_said(stored: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown format"):
        run("export", "--to", "xml", str(tmp_path / "x"))
    monkeypatch.setenv("RAGCUN_HOME", str(tmp_path / "nothing"))
    with pytest.raises(EvaluationError, match="no results yet"):
        run("ls")
