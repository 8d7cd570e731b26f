"""Training: a step from cached vectors beside the same step with the encoder in the loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.fake_encoder import DIM, write_cache
from benchmarks.models import OurEncoder, PlainEncoder
from benchmarks.page import paragraphs, table
from benchmarks.passages import some_pairs
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, Timing, take_turns
from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.role import Role
from ragcun_cache.training.config import TrainConfig, make_config
from ragcun_cache.training.loop import Epoch, PairTensors, make_optimizer, run_epochs

TITLE = "Training a head"
PACKAGES = ("numpy", "torch", "sentence-transformers")

_PAIRS = 10_000
_CACHED_STEPS, _ENCODED_STEPS = 100, 2
# Three epochs of 10,000 pairs in batches of 16.
_RUN_STEPS = 1_875
_SHARD_ROWS = 512


@dataclass(frozen=True)
class EncodedPairs(PairTensors):
    """Pairs whose vectors are computed again whenever they are asked for, as without a cache."""

    texts: list[tuple[str, str]]
    encode: Callable[[list[str]], NDArray[np.float32]]

    def batch(self, chosen_b: Tensor, *, negatives: bool = False) -> PairBatch:
        """Encode the queries and passages of the pairs ``chosen_b``."""
        chosen = [self.texts[row] for row in chosen_b.tolist()]
        vectors_nd = torch.from_numpy(self.encode([text for side in zip(*chosen, strict=True) for text in side]))
        return PairBatch(*vectors_nd.chunk(2))


def run(setting: Setting) -> str:
    """Return the section. Both go through the product's own training loop; only where vectors come from differs."""
    config = make_config({"dataset": "fake", "arch": "lejepa", "epochs": 1, "device": "cpu"})
    caches = {role: write_cache(setting.scratch, _PAIRS, _SHARD_ROWS, role=role) for role in Role}
    started = time.perf_counter()
    query_nd, passage_md = (torch.from_numpy(EmbeddingCache(caches[role]).array()) for role in Role)
    read_seconds = time.perf_counter() - started

    def rows(steps: int) -> Tensor:
        return torch.arange(steps * config.batch_size)[:, None].expand(-1, 2)

    texts = some_pairs(setting.home, _ENCODED_STEPS * config.batch_size)
    auto, plain = OurEncoder(setting.home), PlainEncoder(setting.home)
    nothing = torch.empty(0, DIM)
    sources = {
        "cache": PairTensors(query_nd, passage_md, rows(_CACHED_STEPS)),
        f"our encoder ({auto.model.choice.precision})": EncodedPairs(
            nothing, nothing, rows(_ENCODED_STEPS), texts, auto.embed
        ),
        "SentenceTransformer.encode": EncodedPairs(nothing, nothing, rows(_ENCODED_STEPS), texts, plain.encode),
    }
    epochs = take_turns({name: _epoch_of(pairs, config) for name, pairs in sources.items()})
    steps = {
        name: Timing([seconds * config.batch_size / len(sources[name].train_p2) for seconds in timing.seconds])
        for name, timing in epochs.items()
    }
    about = (
        f"`lejepa`, {DIM} dimensions, batches of {config.batch_size} pairs, on the CPU, medians of {ROUNDS} epochs of "
        f"{_CACHED_STEPS} steps from the cache and {_ENCODED_STEPS} with the encoder in the loop, which encodes the "
        f"{2 * config.batch_size} texts of each step (train pairs of `pydocs`). The last column is a step times "
        f"{_RUN_STEPS:,}: three epochs of {_PAIRS:,} pairs. Reading the {2 * _PAIRS:,} vectors of a cache, once, took "
        f"{read_seconds:.2f} s and is not in it, nor is the one encode that fills a cache."
    )
    return paragraphs(
        about,
        table(
            ["vectors from", "ms a step", "time ÷ cache", f"{_RUN_STEPS:,} steps, s (extrapolated)"],
            [
                [name, step.spread.scaled(1e3), step.over(steps["cache"]), step.spread.scaled(_RUN_STEPS)]
                for name, step in steps.items()
            ],
        ),
    )


def _epoch_of(pairs: PairTensors, config: TrainConfig) -> Callable[[], list[Epoch]]:
    """Return a function that trains one epoch of a head that is built now, so that building is not timed."""
    head = build_head(config.head_config(DIM), seed=0)
    optimizer = make_optimizer(head, config)
    return lambda: list(run_epochs(head, pairs, config, optimizer, first_epoch=1))
