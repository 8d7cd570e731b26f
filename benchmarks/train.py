"""Training: one published run, and the same steps with the encoder in the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import OurEncoder, PlainEncoder
from benchmarks.passages import texts_of_pairs
from benchmarks.published_run import DATASETS, PAIRS, RunSeconds, epoch_of, published_run, tensors_of, timed_run
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, Spread, Timing, take_turns
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.home import Home
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.training.config import TrainConfig
from ragcun_cache.training.loop import PairTensors
from ragcun_cache.training.pairs import TrainingData

TITLE = "Training a head"
PACKAGES = ("numpy", "torch", "sentence-transformers")

_EVALUATE = ("scifact", "nfcorpus")
_RUNS = 3
_CACHED_STEPS, _ENCODED_STEPS = 100, 10

Encode = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class EncodedPairs(PairTensors):
    """Pairs whose vectors are computed again whenever they are asked for, as without a cache."""

    texts: list[tuple[str, str]]
    encode: Encode

    def batch(self, chosen_b: Tensor, *, negatives: bool = False) -> PairBatch:
        """Encode the queries and passages of the pairs ``chosen_b``."""
        chosen = [self.texts[row] for row in chosen_b.tolist()]
        vectors_nd = torch.from_numpy(self.encode([text for side in zip(*chosen, strict=True) for text in side]))
        return PairBatch(*vectors_nd.chunk(2))


def real_encoders(home: Home) -> dict[str, Encode]:
    """Return the ways to encode in the loop, the plain one last."""
    ours = OurEncoder(home)
    return {
        f"our encoder ({ours.name})": ours.embed,
        "SentenceTransformer.encode": PlainEncoder(home).encode,
    }


def run(
    setting: Setting,
    *,
    datasets: Sequence[str] = DATASETS,
    pairs: int | None = PAIRS,
    evaluate: Sequence[str] = _EVALUATE,
    runs: int = _RUNS,
    rounds: int = ROUNDS,
    cached_steps: int = _CACHED_STEPS,
    encoded_steps: int = _ENCODED_STEPS,
    encoders: Callable[[Home], Mapping[str, Encode]] = real_encoders,
) -> str:
    """Return the section. All of it goes through the product's own loop; only where vectors come from differs."""
    config, data = published_run(setting, datasets, pairs)
    took = [timed_run(config, setting, evaluate) for _ in range(1 + runs)][1:]
    about = (
        f"`{config.arch}` as published: {len(data.train_p2):,} pairs of {config.dataset}, {config.epochs} epochs of "
        f"batches of {config.batch_size}, {data.caches.passage.dim} dimensions, on the CPU, {torch.get_num_threads()} "
        "threads."
    )
    in_loop = _encoded_section(config, data, rounds, cached_steps, encoded_steps, encoders(setting.home), setting.home)
    return paragraphs(about, *_run_section(took, config, evaluate), *in_loop)


def _run_section(took: list[RunSeconds], config: TrainConfig, evaluate: Sequence[str]) -> tuple[str, str]:
    def spread(part: Callable[[RunSeconds], float]) -> Spread:
        return Spread.of([part(one) for one in took])

    about = (
        f"One run, imports aside, from the caches on disk to a head that was evaluated on the test splits of "
        f"{', '.join(evaluate)} after every epoch, results stored. Medians of {len(took)} runs, after one that does "
        "not count."
    )
    rows: list[list[object]] = [
        [f"training, {config.epochs} epochs", spread(lambda one: one.training)],
        [f"measuring on dev and the geometry, {config.epochs + 1} times", spread(lambda one: one.measuring)],
        [f"evaluating on {', '.join(evaluate)}, {config.epochs} times", spread(lambda one: one.evaluating)],
        ["reading caches, writing heads and checkpoints", spread(lambda one: one.rest)],
        ["all", spread(lambda one: one.whole)],
    ]
    return about, table(["one run", "seconds"], rows)


def _encoded_section(
    config: TrainConfig,
    data: TrainingData,
    rounds: int,
    cached_steps: int,
    encoded_steps: int,
    encoders: Mapping[str, Encode],
    home: Home,
) -> tuple[str, str]:
    drawn = data.train_p2[np.random.default_rng(0).permutation(len(data.train_p2))]
    few = drawn[: encoded_steps * config.batch_size]
    texts, nothing = texts_of_pairs(home, data, few), torch.empty(0, data.caches.passage.dim)
    numbered = torch.arange(len(few))[:, None].expand(-1, 2)
    sources = {"cache": tensors_of(data, drawn[: cached_steps * config.batch_size])} | {
        name: EncodedPairs(nothing, nothing, numbered, texts, encode) for name, encode in encoders.items()
    }
    epochs = take_turns({name: epoch_of(pairs, config)[1] for name, pairs in sources.items()}, rounds=rounds)
    steps = {
        name: Timing([seconds * config.batch_size / len(sources[name].train_p2) for seconds in timing.seconds])
        for name, timing in epochs.items()
    }
    run_steps = config.epochs * -(-len(data.train_p2) // config.batch_size)
    about = (
        f"The same steps with the encoder in the loop: it encodes the {2 * config.batch_size} texts of every step, and "
        f"keeps nothing. Medians of {rounds} rounds of {encoded_steps} steps, {rounds * encoded_steps} in all, and of "
        f"{cached_steps} steps from the cache. The last column is a step times {run_steps:,}, training alone; the one "
        "encode that fills a cache is not in it."
    )
    return about, table(
        ["vectors from", "ms a step", "time ÷ cache", f"{run_steps:,} steps, s (extrapolated)"],
        [
            [name, step.spread.scaled(1e3), step.over(steps["cache"]), step.spread.scaled(run_steps)]
            for name, step in steps.items()
        ],
    )
