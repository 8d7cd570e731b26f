from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ragcun_cache.errors import HeadError
from ragcun_cache.heads import HeadConfig, apply_head, list_heads, load_head, read_record
from ragcun_cache.heads.config import Arch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import RECORD_NAME, WEIGHTS_NAME, save_head
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity


def config_of(arch: Arch, **settings: object) -> HeadConfig:
    base = {"arch": arch, "in_dim": 8, "out_dim": 8 if arch == Arch.IDENTITY else 5, "similarity": Similarity.L2}
    return HeadConfig.model_validate(base | settings)


@pytest.mark.parametrize("arch", list(Arch))
def test_round_trip(tmp_path: Path, arch: Arch) -> None:
    head = build_head(config_of(arch, ema=0.9), seed=4)
    record = save_head(tmp_path / "one", head, {"complete": True, "seed": 4})
    saved = load_head(tmp_path / "one")
    rows_nd = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    for role in Role:
        np.testing.assert_array_equal(apply_head(saved.head, rows_nd, role), apply_head(head, rows_nd, role))
    assert (saved.name, saved.config, saved.sha256) == ("one", head.config, record.sha256)
    assert saved.provenance == {"complete": True, "seed": 4}
    assert saved.head.similarity == Similarity.L2
    assert not any(parameter.requires_grad for parameter in saved.head.parameters())
    assert [found.sha256 for found in list_heads(tmp_path)] == [record.sha256]


def test_only_what_retrieval_needs_is_saved(tmp_path: Path) -> None:
    save_head(tmp_path / "one", build_head(config_of(Arch.LEJEPA, ema=0.9), seed=0), {})
    assert {name.split(".")[0] for name in load_file(tmp_path / "one" / WEIGHTS_NAME)} == {"projection"}


def test_hash_follows_what_scores_depend_on_and_nothing_else(tmp_path: Path) -> None:
    def sha256(name: str, seed: int, **settings: object) -> str:
        return save_head(tmp_path / name, build_head(config_of(Arch.UNTRAINED, **settings), seed=seed), {}).sha256

    base = sha256("base", 0)
    assert sha256("again", 0) == base
    assert sha256("dropout", 0, dropout=0.3) == base
    assert (
        len(
            {
                base,
                sha256("seed", 1),
                sha256("cosine", 0, similarity="cosine"),
                sha256("scale", 0, input_scale="sqrt_dim"),
            }
        )
        == 4
    )


def test_no_head(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="there is no head here"):
        load_head(tmp_path / "none")


@pytest.mark.parametrize("damage", ["not json", "[]", '{"schema": 1}', '{"schema": 1, "config": {"arch": "x"}}'])
def test_damaged_record(tmp_path: Path, damage: str) -> None:
    save_head(tmp_path / "one", build_head(config_of(Arch.UNTRAINED), seed=0), {})
    (tmp_path / "one" / RECORD_NAME).write_text(damage)
    with pytest.raises(HeadError, match="record cannot be read"):
        read_record(tmp_path / "one")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    save_head(folder, build_head(config_of(Arch.UNTRAINED), seed=0), {})
    path = folder / WEIGHTS_NAME
    weights = load_file(path)

    save_file({**weights, "projection.mlp.3.bias": torch.zeros(6)}, path)
    with pytest.raises(HeadError, match=r"do not fit its config, at projection.mlp.3.bias(.|\n)*\(5,\)(.|\n)*\(6,\)"):
        load_head(folder)
    save_file({**weights, "stranger": torch.zeros(1)}, path)
    with pytest.raises(HeadError, match=r"at stranger(.|\n)*no such tensor"):
        load_head(folder)
    save_file({**weights, "projection.mlp.3.bias": torch.zeros(5)}, path)
    with pytest.raises(HeadError, match="not those that its record was written for"):
        load_head(folder)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(HeadError, match="cannot be read"):
        load_head(folder)
    path.unlink()
    with pytest.raises(HeadError, match="weights are missing"):
        load_head(folder)


def test_record_of_another_version(tmp_path: Path) -> None:
    save_head(tmp_path / "one", build_head(config_of(Arch.UNTRAINED), seed=0), {})
    path = tmp_path / "one" / RECORD_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(HeadError, match="another version"):
        load_head(tmp_path / "one")


def test_listing_heads_and_checking_a_config_load_no_torch() -> None:
    code = (
        "import sys, ragcun_cache.heads, ragcun_cache.training.run\n"
        "import ragcun_cache.cli.train_head, ragcun_cache.cli.heads\n"
        "assert not {'torch', 'faiss', 'sentence_transformers', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
