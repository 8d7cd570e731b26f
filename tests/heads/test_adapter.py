from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ragcun_cache.errors import ConfigError, HeadError
from ragcun_cache.heads import apply_head, load_head
from ragcun_cache.heads.adapter import AdapterHead
from ragcun_cache.heads.config import ADAPTER, AdapterMap, AdapterShape, HeadConfig, Init, InputScale, Side
from ragcun_cache.heads.own import register_head
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import save_head
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity
from ragcun_cache.training.config import make_config

DIM = 24
SHAPES = [
    AdapterShape(map=kind, side=side, rank=4 if kind == AdapterMap.LOW_RANK else None)
    for kind in AdapterMap
    for side in Side
]


def head_of(shape: AdapterShape, seed: int = 0) -> AdapterHead:
    config = HeadConfig(
        arch=ADAPTER,
        in_dim=DIM,
        out_dim=DIM,
        similarity=Similarity.COSINE,
        init=Init.IDENTITY,
        input_scale=InputScale.SQRT_DIM,
        dropout=0.0,
        adapter=shape,
    )
    head = build_head(config, seed=seed)
    assert isinstance(head, AdapterHead)
    return head


def moved(shape: AdapterShape) -> AdapterHead:
    head = head_of(shape)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return head


def rows(n: int = 30) -> np.ndarray:
    rows_nd = np.random.default_rng(0).normal(size=(n, DIM)).astype(np.float32)
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_adapter_returns_the_raw_rows_bit_for_bit_until_it_is_trained(shape: AdapterShape) -> None:
    head = head_of(shape)
    assert head.departure().item() == 0
    for role in Role:
        np.testing.assert_array_equal(apply_head(head, rows(), role), rows())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_mix_goes_from_the_identity_to_the_adapter(shape: AdapterShape) -> None:
    head = moved(shape)
    assert head.departure().item() > 0
    whole = apply_head(head, rows(), Role.QUERY)
    half = apply_head(head.mixed(0.5), rows(), Role.QUERY)
    np.testing.assert_array_equal(apply_head(head.mixed(0.0), rows(), Role.QUERY), rows())
    np.testing.assert_array_equal(apply_head(head.mixed(1.0), rows(), Role.QUERY), whole)
    np.testing.assert_allclose(half, (whole + rows()) / 2, atol=1e-6)
    np.testing.assert_array_equal(apply_head(head, rows(), Role.QUERY), whole)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_passages_move_only_with_an_adapter_of_both_sides(shape: AdapterShape) -> None:
    passages = apply_head(moved(shape), rows(), Role.PASSAGE)
    assert np.array_equal(passages, rows()) == (shape.side == Side.QUERY)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_adapter_is_saved_and_read_back(shape: AdapterShape, tmp_path: Path) -> None:
    head = moved(shape)
    record = save_head(tmp_path / "run", head, {})
    loaded = load_head(tmp_path / "run")
    assert loaded.config == head.config and loaded.sha256 == record.sha256
    np.testing.assert_array_equal(apply_head(loaded.head, rows(), Role.QUERY), apply_head(head, rows(), Role.QUERY))


def test_a_shape_has_a_rank_if_and_only_if_it_is_of_low_rank() -> None:
    for given in ({"map": "low_rank"}, {"map": "linear", "rank": 3}):
        with pytest.raises(ValidationError, match="rank"):
            AdapterShape.model_validate(given)
    with pytest.raises(ValidationError, match="adapter"):
        HeadConfig(arch=ADAPTER, in_dim=4, out_dim=4, similarity=Similarity.COSINE)
    with pytest.raises(ValidationError, match="adapter"):
        HeadConfig(arch="lejepa", in_dim=4, out_dim=4, similarity=Similarity.COSINE, adapter=AdapterShape())


def test_the_name_is_taken_and_train_head_does_not_know_it() -> None:
    with pytest.raises(HeadError, match="built-in"):
        register_head(ADAPTER, lambda config: head_of(AdapterShape()))
    with pytest.raises(ConfigError, match="unknown arch 'adapter'"):
        make_config({"dataset": "x", "arch": ADAPTER})
