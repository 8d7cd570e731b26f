"""The commands for the vectors of a report: run again, they make the same caches."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from ragcun_cache.cache import list_caches
from ragcun_cache.cli.main import app
from ragcun_cache.files import write_json
from ragcun_cache.home import Home
from ragcun_cache.report.provenance import _evals
from ragcun_cache.report.vectors import Datasets, vector_commands
from ragcun_cache.role import Role


def result(name: str, query: str, passage: str, model: str = "fake"):
    """As much of a result as its vectors are known by."""
    setting = SimpleNamespace(
        collection=name,
        model=model,
        encoder="e" * 16,
        split="test",
        config=SimpleNamespace(index="flat"),
        query_fingerprint=query,
        passage_fingerprint=passage,
    )
    return SimpleNamespace(setting=setting)


def record(dataset: str, name: str, **train: object):
    """As much of the record of a head that was trained on vectors of ``name``."""
    caches = {"collection": name, **{role: {"fingerprint": f"{role}-0"} for role in Role}}
    return SimpleNamespace(
        provenance={"train": {"dataset": dataset, **train}, "caches": caches, "encoder_model": "all-mpnet-base-v2"}
    )


def commands(home: Home, results: Iterable = (), records: Iterable = ()) -> list[str]:
    return vector_commands(results, records, Datasets(records, home), home)


def fingerprints(home: Home) -> dict[Role, str]:
    return {manifest.role: manifest.fingerprint for _, manifest in list_caches(home.caches)}


def test_the_command_makes_the_same_caches_again(
    tiny_encoder: Path, tiny_collection, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_collection("tiny", n_passages=8, splits={"test": 4})
    asked = f"--model {tiny_encoder} --model-id mine --backend torch --precision fp32 --storage-dtype float32"
    asked += " --max-seq-length 9 --query-prompt 'ask: ' --passage-prompt ''"
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    assert CliRunner().invoke(app, ["encode", "--dataset", str(folder), *shlex.split(asked)]).exit_code == 0
    made = fingerprints(home)
    note, line = commands(home, [result("tiny", made[Role.QUERY], made[Role.PASSAGE], "mine")])
    assert note == "# mine: --model is its name on the hub, or its folder"
    assert set(shlex.split(line)) >= {"mine", "torch", "fp32", "float32", "9", "ask: ", ""}
    again = Home(tmp_path / "again")
    again.collections.mkdir(parents=True)
    (again.collections / "tiny").symlink_to(folder)
    again.models.mkdir()
    (again.models / "mine").symlink_to(tiny_encoder)
    monkeypatch.setenv("RAGCUN_HOME", str(again.root))
    program, *arguments = shlex.split(line)
    assert program == "ragcun-cache"
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert fingerprints(again) == made
    # Below models/ the name is enough.
    (line,) = commands(again, [result("tiny", made[Role.QUERY], made[Role.PASSAGE], "mine")])
    assert "--model mine --backend" in line


def test_what_the_default_model_does_by_default_is_left_out(home: Home, cache_of) -> None:
    spec = {"model_id": "all-mpnet-base-v2", "backend": "openvino", "storage_dtype": "float16"}
    spec |= {"max_seq_length": 384, "prompt": ""}
    for role in Role:
        cache_of(home.caches, "scifact", role, ["a"], np.eye(1, dtype=np.float16), spec=spec)
    made = fingerprints(home)
    assert commands(home, [result("scifact", made[Role.QUERY], made[Role.PASSAGE], "all-mpnet-base-v2")]) == [
        "ragcun-cache encode --dataset scifact --backend openvino --precision fp32"
    ]


def test_imported_vectors_are_not_said_to_be_encoded(home: Home, cache_of) -> None:
    spec = {"model_id": "api/model", "backend": "imported", "prompt": "a\nb", "settings": {"dimensions": "2"}}
    for role in Role:
        cache_of(home.caches, "scifact", role, ["a"], np.eye(1, dtype=np.float16), spec=spec)
    made = fingerprints(home)
    lines = commands(home, [result("scifact", made[Role.QUERY], made[Role.PASSAGE], "api/model")])
    assert lines == [
        f"# not encoded, but imported: ragcun-cache caches import --dataset scifact --role {role} "
        "--model-id api/model --provenance dimensions=2 --prompt 'a b' --vectors …"
        for role in ("query", "passage")
    ]


def test_a_folder_goes_by_the_path_that_a_head_knows(home: Home) -> None:
    results, records = [result("mine", "query-0", "passage-0", "all-mpnet-base-v2")], [record("some/mine", "mine")]
    note, line = commands(home, results, records)
    assert line == "ragcun-cache encode --dataset some/mine"
    assert note.startswith("# mine: no cache is left")
    assert _evals(results, Datasets(records, home)) == [
        f"ragcun-cache eval --dataset some/mine --encoder {'e' * 16} --split test"
    ]
    note, *_ = commands(home, results)
    assert note == "# mine was a folder, and no name leads to it now: put its path in place of the name"


def test_samples_and_titles_are_made_first(home: Home) -> None:
    def lines(name: str, *records) -> list[str]:
        found = commands(home, [result(name, "query-0", "passage-0", "all-mpnet-base-v2")], records)
        return [line for line in found if not line.startswith("#")]

    for name, about in (
        ("nq-pairs5-seed1", {"sample_of": "nq", "pairs": 5, "seed": 1}),
        ("nq-titles-whole", {"titles_of": "nq", "whole": True}),
    ):
        folder = home.collections / name
        folder.mkdir(parents=True)
        for file in ("corpus.jsonl", "queries.jsonl"):
            (folder / file).touch()
        write_json(folder / "collection.json", about)
    drawn = "ragcun-cache encode --dataset nq --pairs 5 --seed 1"
    assert lines("nq-pairs5-seed1") == [drawn]
    assert lines("nq-pairs5-seed1", record("nq", "nq-pairs5-seed1", pairs=5, pairs_seed=1)) == [drawn]
    # Of a head whose pairs were found in the vectors of the whole, the whole is encoded.
    assert lines("nq", record("nq", "nq", pairs=5, pairs_seed=1)) == ["ragcun-cache encode --dataset nq"]
    assert lines("nq-titles-whole") == [
        "ragcun-cache collections titles nq --whole",
        "ragcun-cache encode --dataset nq-titles-whole",
    ]


def test_prompts_of_one_encoder_are_told_apart(home: Home) -> None:
    results = [result("nq", query, "passage-0") for query in ("query-0", "query-1")]
    assert [line.split("--encoder ")[1] for line in _evals(results, Datasets([], home))] == [
        "query-0+passage-0 --split test",
        "query-1+passage-0 --split test",
    ]
