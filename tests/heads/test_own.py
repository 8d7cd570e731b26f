from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cache.errors import ConfigError, HeadError
from ragcun_cache.evaluation.candidates import describe_head
from ragcun_cache.files import sha256_file
from ragcun_cache.heads import apply_head, list_heads, load_head
from ragcun_cache.heads import own as own_heads
from ragcun_cache.heads.own import register_head
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import WEIGHTS_NAME
from ragcun_cache.role import Role
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head

SOURCE = """
import torch
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.own import register_head

class Scaled(Head):
    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(config.in_dim))

    def encode_query(self, x_bd):
        return x_bd * self.scale

    def encode_passage(self, x_bd):
        return x_bd

    def losses(self, batch, step):
        return {"distance": (self.encode_query(batch.query_bd) - batch.passage_bd).square().sum(1).mean()}

register_head("scaled", Scaled)
"""


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_heads, "_registered", {})
    monkeypatch.setattr(own_heads, "_loaded", {})
    monkeypatch.delenv(own_heads.VARIABLE, raising=False)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "scaled.py"
    path.write_text(SOURCE)
    monkeypatch.setenv(own_heads.VARIABLE, str(path))
    return path


@pytest.fixture
def data(home, tiny_collection, tiny_pair) -> None:
    folder = tiny_collection()
    files = {Role.QUERY: folder / "queries.jsonl", Role.PASSAGE: folder / "corpus.jsonl"}
    tiny_pair(content={role: sha256_file(path) for role, path in files.items()})


SETTINGS = {"dataset": "tiny", "arch": "scaled", "init": "identity", "epochs": 2, "device": "cpu"}


def test_a_head_from_a_file_trains_is_saved_and_loads(source: Path, data: None, home) -> None:
    trained = train_head(make_config(SETTINGS), home)
    assert trained.rows[2]["loss"] == trained.rows[2]["loss_distance"] < trained.rows[1]["loss_distance"]
    head = load_head(trained.record.folder).head
    rows_nd = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    assert not np.array_equal(apply_head(head, rows_nd, Role.QUERY), rows_nd)
    np.testing.assert_array_equal(apply_head(head, rows_nd, Role.PASSAGE), rows_nd)


def test_an_edited_file_is_another_head(source: Path, data: None, home) -> None:
    first = train_head(make_config(SETTINGS), home)
    assert train_head(make_config(SETTINGS), home).reused
    source.write_text(SOURCE.replace(".mean()", ".mean() * 2"))
    second = train_head(make_config(SETTINGS), home)
    assert not second.reused
    assert second.record.name != first.record.name
    assert describe_head(second.record, home).group != describe_head(first.record, home).group


def test_a_head_is_not_loaded_with_code_that_it_was_not_trained_with(source: Path, data: None, home) -> None:
    record = train_head(make_config(SETTINGS), home).record
    trained_with = sha256_file(source)
    source.write_text(SOURCE.replace("x_bd * self.scale", "x_bd / self.scale"))
    with pytest.raises(HeadError, match=f"scaled was edited since head {record.name} was trained") as caught:
        load_head(record.folder)
    assert caught.value.where == record.folder
    assert (caught.value.expected, caught.value.found) == (
        f"a file of sha256 {trained_with}",
        f"sha256 {sha256_file(source)}",
    )
    assert caught.value.fix == "restore the file, or train again"
    source.write_text(SOURCE)
    assert load_head(record.folder).sha256 == record.sha256


def test_results_of_heads_with_equal_weights_are_told_apart_by_code_and_seed(source: Path, data: None, home) -> None:
    untrained = SETTINGS | {"epochs": 0}
    records = [train_head(make_config(untrained | {"seed": seed}), home).record for seed in (0, 1)]
    assert load_head(records[0].folder).sha256 == records[0].sha256
    source.write_text(SOURCE.replace("x_bd * self.scale", "x_bd.abs() * self.scale"))
    records.append(train_head(make_config(untrained), home).record)
    assert len({(record.folder / WEIGHTS_NAME).read_bytes() for record in records}) == 1
    assert len({describe_head(record, home).sha256 for record in records}) == 3


def test_an_edit_while_a_head_is_trained_makes_no_other_head_of_it(source: Path, data: None, home) -> None:
    trained_with = sha256_file(source)

    def edit(row: dict[str, object]) -> None:
        source.write_text(SOURCE + "# edited")

    train_head(make_config(SETTINGS | {"epochs": 3}), home, also_epochs=[1, 2], on_epoch=edit)
    assert sha256_file(source) != trained_with
    left = {record.provenance["epochs"]: record.provenance["arch_source_sha256"] for record in list_heads(home.heads)}
    assert left == {1: trained_with, 3: trained_with}


def test_a_head_that_no_file_registers_has_no_source_to_compare(data: None, home) -> None:
    namespace: dict[str, object] = {}
    exec(SOURCE, namespace)
    record = train_head(make_config(SETTINGS), home).record
    assert record.provenance["arch_source_sha256"] is None
    assert load_head(record.folder).sha256 == record.sha256


def test_a_head_whose_file_is_gone_says_how_to_find_it(source: Path, data: None, home) -> None:
    record = train_head(make_config(SETTINGS), home).record
    own_heads._registered.clear()
    source.unlink()
    with pytest.raises(HeadError, match=r"no such file of heads(.|\n)*RAGCUN_HEADS"):
        load_head(record.folder)


def test_tensors_that_are_not_saved_are_there_again_as_they_were_in_training(source: Path, data: None, home) -> None:
    source.write_text(
        SOURCE.replace(
            "torch.ones(config.in_dim))\n",
            "torch.ones(config.in_dim))\n"
            "        self.shift = torch.randn(config.in_dim)\n"
            "        self.register_buffer('mask', torch.rand(config.in_dim), persistent=False)\n",
        ).replace("x_bd * self.scale", "(x_bd + self.shift) * self.mask * self.scale")
    )
    config = make_config(SETTINGS | {"seed": 7, "epochs": 1})
    before = torch.random.get_rng_state()
    head = load_head(train_head(config, home).record.folder).head
    built = build_head(head.config, seed=7)
    assert torch.equal(head.shift, built.shift) and torch.equal(head.mask, built.mask)
    assert not torch.equal(head.scale, built.scale)
    rows_nd = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    expected_nd = (rows_nd + built.shift.numpy()) * built.mask.numpy() * head.scale.numpy()
    np.testing.assert_allclose(apply_head(head, rows_nd, Role.QUERY), expected_nd, rtol=1e-6)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_folder_of_files(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(own_heads.VARIABLE, str(source.parent))
    assert make_config({"dataset": "x", "arch": "scaled"}).arch == "scaled"


def test_refusals(source: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown arch 'scale'(.|\n)*lejepa(.|\n)*did you mean 'scaled'"):
        make_config({"dataset": "x", "arch": "scale"})
    with pytest.raises(HeadError, match="built-in"):
        register_head("lejepa", lambda config: None)
    source.write_text("1 / 0")
    with pytest.raises(HeadError, match=r"raised an error(.|\n)*ZeroDivisionError"):
        make_config({"dataset": "x", "arch": "scaled"})
