from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import train, train_scale, train_step
from benchmarks.setting import Setting
from benchmarks.step_bound import BareSteps, MatrixProducts, OptimiserMemory
from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.errors import CollectionError
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.home import Home
from ragcun_cache.training.config import load_config
from ragcun_cache.training.loop import weighted

DIM = 16


def test_the_products_of_a_step_are_all_of_them_and_come_out_as_in_the_step() -> None:
    config = load_config(None, {"dataset": "x", "arch": "lejepa", "dropout": 0.0}, "published")
    head = build_head(config.head_config(DIM), seed=0).train()
    batch = PairBatch(torch.randn(8, DIM), torch.randn(8, DIM))
    with MatrixProducts() as products:
        weighted(head.losses(batch, 0), config).backward()  # type: ignore[no-untyped-call]
    layer = 2 * DIM * 2 * DIM
    # Projection: 16 rows, two layers forward, two weights and one input backward. Predictor: 8 rows, its first input
    # has a gradient too. Target: 8 rows forward. Isotropy: the covariance, as 16 rows are no fewer than dims, and back.
    isotropy = 3 * 2 * 16 * DIM * DIM
    assert products.flop == 5 * 16 * layer + 6 * 8 * layer + 2 * 8 * layer + isotropy
    gradients = [
        parameter.grad for parameter in head.parameters() if parameter.grad is not None and parameter.dim() == 2
    ]
    computed = {tensor.numpy().tobytes() for tensor in products.compute()}
    assert len(gradients) == 4
    assert all(gradient.numpy().tobytes() in computed for gradient in gradients)


def test_the_optimiser_moves_seven_passes_over_what_learns_and_three_over_what_is_averaged() -> None:
    config = load_config(None, {"dataset": "x", "arch": "lejepa"}, "published")
    head = build_head(config.head_config(DIM), seed=0)
    two_layers = 4 * (2 * DIM * 2 * DIM + 3 * DIM)
    memory = OptimiserMemory(head)
    memory.add()
    memory.adamw()
    assert memory.step_bytes == 7 * 2 * two_layers + 3 * two_layers
    assert (memory.add_bytes, memory.adamw_bytes) == (6 * 2 * two_layers, 7 * 2 * two_layers)


def test_bare_steps_take_their_parts_in_turns_and_time_each() -> None:
    config = load_config(None, {"dataset": "x", "arch": "lejepa"}, "published")
    taken: list[str] = []

    class Products(MatrixProducts):
        def compute(self) -> list[Tensor]:
            taken.append("products")
            time.sleep(0.01)
            return []

    class Memory(OptimiserMemory):
        def adamw(self) -> None:
            taken.append("AdamW")

        def add(self) -> None:
            taken.append("add")

    bare = BareSteps(Products(), Memory(build_head(config.head_config(DIM), seed=0)))
    bare.take(2)
    bare.take(1)
    assert taken == ["products", "AdamW", "add"] * 3
    assert {name: len(seconds) for name, seconds in bare.seconds.items()} == {"products": 2, "AdamW": 2, "add": 2}
    # Sleeping is never shorter than asked.
    assert bare.seconds["products"][0] >= 0.02
    assert bare.seconds["products"][1] >= 0.01


def _fake(texts: list[str]) -> NDArray[np.float32]:
    return np.random.default_rng(len(texts)).normal(size=(len(texts), DIM)).astype(np.float32)


def test_the_section_has_the_run_and_the_encoder_in_the_loop(
    home: Home, cached_collection: Callable[..., tuple[Collection, CachePair]]
) -> None:
    cached_collection(dim=DIM)
    scratch = home.root / "scratch"
    scratch.mkdir()
    asked: list[int] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        asked.append(len(texts))
        return _fake(texts)

    section = train.run(
        Setting(home, scratch),
        datasets=["absent", "tiny"],
        pairs=None,
        evaluate=["tiny"],
        runs=1,
        rounds=2,
        cached_steps=2,
        encoded_steps=1,
        encoders=lambda _: {"fake": encode},
    )
    assert "40 pairs of tiny" in section
    assert "| evaluating on tiny, 3 times |" in section
    assert "9 steps, s (extrapolated)" in section
    # A round that does not count and two that do, of one step of 16 pairs each.
    assert asked == [32, 32, 32]
    assert not list((scratch / "home").glob("heads*"))
    assert not home.heads.exists()
    assert not home.results.exists()


@pytest.mark.parametrize(("threads", "shown"), [(1, ["1"]), (2, ["2", "1"])])
def test_a_step_is_beside_its_bound_with_all_threads_and_with_one(
    threads: int,
    shown: list[str],
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
) -> None:
    cached_collection(dim=DIM)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        section = train_step.run(Setting(home, home.root), datasets=["absent", "tiny"], pairs=None, rounds=2, steps=2)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert re.findall(r"^Threads: (\d)\.$", section, re.MULTILINE) == shown
    assert len(re.findall(r"A step reaches [\d.]+ \(.*\) % of the bound", section)) == len(shown)
    assert len(re.findall(r"[\d.]+ \(.*\) % of the sum of both by themselves", section)) == len(shown)


def test_a_collection_that_is_not_there_is_an_error(home: Home) -> None:
    with pytest.raises(CollectionError, match="absent"):
        train.run(Setting(home, home.root), datasets=["absent", "neither"])


def test_a_large_training_has_a_line_for_each_dtype(tmp_path: Path) -> None:
    section = train_scale.run(
        Setting(Home(tmp_path), tmp_path, rows=600), recipes=[("as published", 16)], steps={16: 2}
    )
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines[2:]] == [
        "| as published, 16, float32",
        "| as published, 16, float16",
    ]
    assert [line[1] for line in lines[2:]] == ["38", "38"]
