"""The command line of collections."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragcun_cache.cli.collections import app
from ragcun_cache.errors import CollectionError
from ragcun_cache.home import Home


@pytest.fixture(autouse=True)
def at_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    monkeypatch.delenv("RAGCUN_COLLECTIONS", raising=False)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception:
        raise result.exception
    return result.stdout


def test_ls_shows_the_registry_and_the_disk(tiny_collection: Callable[..., Path]) -> None:
    folder = tiny_collection("mine")
    rows = {row["name"]: row for row in json.loads(run("ls", "--json"))}
    assert rows["mine"]["folder"] == str(folder)
    assert rows["scifact"] == {
        "name": "scifact",
        "passages": 5183,
        "test_queries": 300,
        "test_split": "test",
        "in_base_training": False,
        "licence": rows["fiqa"]["licence"],
        "folder": None,
    }
    assert rows["msmarco"]["test_split"] == "dev"
    assert {"pydocs", "cqadupstack/tex"} <= rows.keys()
    assert "8,841,823" in run("ls")


def test_check_shows_flaws_and_raises_errors(tiny_collection: Callable[..., Path]) -> None:
    folder = tiny_collection("mine")
    with (folder / "qrels" / "test.tsv").open("a") as qrels:
        qrels.write("q55\tgone\t1\n")
    output = run("check", "mine")
    assert f"judged passage does not exist: 1 (first at {folder / 'qrels' / 'test.tsv'}:17)" in output
    assert "mine can be used (dev, test, train); 1 kind(s) of flaw" in output
    (folder / "corpus.jsonl").write_text("{}\n")
    with pytest.raises(CollectionError, match="record has no"):
        run("check", "mine")


def test_fetch_prints_where_it_is(tiny_collection: Callable[..., Path]) -> None:
    folder = tiny_collection("scifact")
    assert run("fetch", "scifact") == f"scifact\t{folder}\n"


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, ragcun_cache.cli.collections;"
        "print([one for one in ('numpy', 'polars', 'pyarrow', 'torch', 'zstandard', 'rich') if one in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_titles_prints_the_name_and_the_folder(home: Home, tiny_collection: Callable[..., Path]) -> None:
    folder = tiny_collection("mine")
    (folder / "corpus.jsonl").write_text('{"_id": "a", "title": "Iron", "text": "A metal."}\n')
    assert run("titles", "mine", "--whole") == f"mine-titles-whole\t{home.collections / 'mine-titles-whole'}\n"
