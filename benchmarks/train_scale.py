"""Training on half a million pairs: seconds of an epoch and memory, by recipe, batch and dtype."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.alone import Alone, run_alone
from benchmarks.fake_encoder import DIM, write_cache
from benchmarks.setting import Setting
from ragcun_cache.cache import CachePair, EmbeddingCache
from ragcun_cache.heads.registry import build_head
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.role import Role
from ragcun_cache.training.config import TensorDtype, TrainConfig, load_config
from ragcun_cache.training.diagnostics import measure_head
from ragcun_cache.training.loop import PairTensors, make_optimizer, run_epochs
from ragcun_cache.training.pairs import TrainingData

TITLE = "Training on half a million pairs"
PACKAGES = ("numpy", "torch")

_ROWS = 500_000
_SHARD_ROWS = 8_192
_DEV_QUERIES = 500
# Steps that are measured: at most so many, of batches of 16 and of 256.
_STEPS = {16: 2_000, 256: 400}
_PUBLISHED, _IDENTITY = "as published", "from the identity"
_RECIPES = ((_PUBLISHED, 16), (_PUBLISHED, 256), (_IDENTITY, 256))


@dataclass(frozen=True)
class Measured:
    """Seconds of reading the vectors, of a training step, and of measuring the head on all passages after an epoch."""

    reading: float
    step: float
    measuring: float


def run(setting: Setting, *, recipes: Sequence[tuple[str, int]] = _RECIPES, steps: Mapping[int, int] = _STEPS) -> str:
    """Return the section. Every line has a process of its own, whose peak is all that it ever held."""
    rows = setting.rows or _ROWS
    caches = [write_cache(setting.scratch, rows, _SHARD_ROWS, role=role) for role in (Role.QUERY, Role.PASSAGE)]
    lines = []
    for name, batch in recipes:
        for dtype in TensorDtype:
            config = _config(name, batch, dtype)
            measured_steps = min(steps[batch], ceil(rows / batch))
            lines.append(_line(name, config, rows, run_alone(measure, *caches, config, measured_steps)))
    about = (
        f"`lejepa`, {rows:,} queries and as many passages × {DIM}, random, from a float16 cache by a fake encoder; a "
        f"pair for each query; on the CPU, {torch.get_num_threads()} threads. Measured once each, each in a process of "
        f"its own: at most {_told(steps)}, their pairs drawn from all, and the seconds of an epoch from these. Between "
        f"two epochs the head is measured on {_DEV_QUERIES} dev queries against all passages. Peak memory has the "
        "vectors, that measurement and all libraries in it."
    )
    columns = ["recipe, batch, dtype", "steps an epoch", "ms a step", "pairs/s", "an epoch, s", "measuring, s"]
    return paragraphs(about, table([*columns, "reading vectors, s", "peak memory, GB"], lines))


def _told(steps: Mapping[int, int]) -> str:
    return " and ".join(f"{count:,} steps of {batch} pairs" for batch, count in steps.items())


def _config(name: str, batch: int, dtype: TensorDtype) -> TrainConfig:
    settings: dict[str, Any] = {"dataset": "fake", "arch": "lejepa", "batch_size": batch, "dtype": dtype, "epochs": 1}
    return load_config(None, {**settings, "device": "cpu"}, "published" if name == _PUBLISHED else None)


def _line(name: str, config: TrainConfig, rows: int, alone: Alone[Measured]) -> list[object]:
    found, steps = alone.result, ceil(rows / config.batch_size)
    return [
        f"{name}, {config.batch_size}, {config.dtype}",
        f"{steps:,}",
        f"{found.step * 1e3:.1f}",
        f"{config.batch_size / found.step:,.0f}",
        f"{found.step * steps:,.0f}",
        f"{found.measuring:.1f}",
        f"{found.reading:.1f}",
        f"{alone.peak_bytes / 1e9:.2f}",
    ]


def measure(query: Path, passage: Path, config: TrainConfig, steps: int) -> Measured:
    """Train ``steps`` steps on the caches in these folders, then measure the head as between two epochs."""
    pair = CachePair("fake", "fake", EmbeddingCache(query), EmbeddingCache(passage))
    rows_p2 = np.random.default_rng(0).permutation(pair.query.rows)[:, None].repeat(2, axis=1)
    dev_qrels = {identifier: {identifier: 1} for identifier in pair.query.ids[:_DEV_QUERIES]}
    data = TrainingData("fake", pair, rows_p2, dev_qrels, False, config.input, "", config.dtype)
    started = time.perf_counter()
    few_p2 = rows_p2[: steps * config.batch_size]
    tensors = PairTensors(*(torch.from_numpy(array) for array in (data.query_nd, data.passage_nd, few_p2)))
    reading = time.perf_counter() - started
    head = build_head(config.head_config(DIM), seed=0)
    (epoch,) = run_epochs(head, tensors, config, make_optimizer(head, config), first_epoch=1)
    _ = data.reference  # searched for once a run
    started = time.perf_counter()
    measure_head(head, data)
    return Measured(reading, epoch.seconds / epoch.steps, time.perf_counter() - started)
