"""The published LeJEPA run on cached vectors: its data, its steps, and the whole of it with evaluation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.setting import Setting
from ragcun_cache.ablation.bench import Bench
from ragcun_cache.errors import CacheError, CollectionError
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import read_record
from ragcun_cache.home import Home
from ragcun_cache.training.config import TrainConfig, load_config
from ragcun_cache.training.loop import Epoch, PairTensors, make_optimizer, run_epochs
from ragcun_cache.training.pairs import TrainingData, load_training_data
from ragcun_cache.training.run import run_name, train_head

# The sample of MS MARCO that the project's figures are from, where MS MARCO itself is not there.
DATASETS, PAIRS = ("msmarco", "msmarco-12k"), 10_000


@dataclass(frozen=True)
class RunSeconds:
    """Seconds of the parts of one run.

    ``training`` and ``measuring`` (on dev and the geometry, epoch 0 too) are those of the head's own table; ``rest`` is
    reading caches and writing heads and checkpoints.
    """

    training: float
    measuring: float
    evaluating: float
    rest: float

    @property
    def whole(self) -> float:
        """Of all."""
        return self.training + self.measuring + self.evaluating + self.rest


def published_run(
    setting: Setting, datasets: Sequence[str] = DATASETS, pairs: int | None = PAIRS
) -> tuple[TrainConfig, TrainingData]:
    """Return LeJEPA as published on the first of ``datasets`` that is cached, and its data, on the CPU."""
    shared = {"arch": "lejepa", "pairs": pairs, "device": "cpu"}
    asked = [load_config(None, {"dataset": name, **shared}, "published") for name in datasets]
    config = cached_collection(setting, asked)
    return config, load_training_data(config, setting.home)


def cached_collection(setting: Setting, configs: Sequence[TrainConfig]) -> TrainConfig:
    """Return the first of ``configs`` whose pairs are cached. Raises the first one's error if none are."""
    errors = []
    for config in configs:
        try:
            load_training_data(config, setting.home)
        except (CollectionError, CacheError) as error:
            errors.append(error)
        else:
            return config
    raise errors[0]


def timed_run(config: TrainConfig, setting: Setting, evaluate: Sequence[str]) -> RunSeconds:
    """Train ``config`` and evaluate each epoch's head; what is written goes to scratch and is removed."""
    home = _beside(setting)
    evaluating = 0.0
    started = time.perf_counter()
    data, bench = load_training_data(config, home), Bench(home, evaluate, None)
    folder = home.heads / run_name(config, data)

    def evaluate_epoch(row: dict[str, Any]) -> None:
        nonlocal evaluating
        before = time.perf_counter()
        bench.evaluate(read_record(folder), config.device)
        evaluating += time.perf_counter() - before

    rows = train_head(config, home, data=data, on_epoch=evaluate_epoch).rows
    whole = time.perf_counter() - started
    training, measuring = (sum(row[name] for row in rows) for name in ("train_seconds", "measure_seconds"))
    for made in (home.heads, home.results):
        shutil.rmtree(made)
    return RunSeconds(training, measuring, evaluating, whole - training - measuring - evaluating)


def _beside(setting: Setting) -> Home:
    """Return a home in scratch that has the collections and caches of the setting's."""
    home = Home(setting.scratch / "home")
    home.root.mkdir(exist_ok=True)
    for ours, theirs in ((home.collections, setting.home.collections), (home.caches, setting.home.caches)):
        if not ours.is_symlink():
            theirs.mkdir(parents=True, exist_ok=True)
            ours.symlink_to(theirs.absolute())
    return home


def tensors_of(data: TrainingData, rows_p2: NDArray[np.int64]) -> PairTensors:
    """Return the vectors of ``data``, and those of its pairs that are ``rows_p2`` (p, 2)."""
    return PairTensors(*(torch.from_numpy(array) for array in (data.query_nd, data.passage_nd, rows_p2)))


def epoch_of(pairs: PairTensors, config: TrainConfig) -> tuple[Head, Callable[[], list[Epoch]]]:
    """Return a head that is built now, so that building is not timed, and a function that trains it for an epoch."""
    dim = pairs.query_nd.shape[1]
    head = build_head(config.head_config(dim), seed=0)
    optimizer = make_optimizer(head, config)
    once = config.model_copy(update={"epochs": 1})
    return head, lambda: list(run_epochs(head, pairs, once, optimizer, first_epoch=1))
