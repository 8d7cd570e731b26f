"""Training: one published run, how near its steps come to the bound, and the same with the encoder in the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import OurEncoder, PlainEncoder
from benchmarks.page import paragraphs, table
from benchmarks.passages import texts_of_pairs
from benchmarks.published_run import RunSeconds, cached_collection, timed_run
from benchmarks.setting import Setting
from benchmarks.step_bound import MatrixProducts, OptimiserMemory
from benchmarks.timing import ROUNDS, Spread, Timing, take_turns
from ragcun_cache.heads.head import Head, PairBatch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.home import Home
from ragcun_cache.training.config import TrainConfig, load_config
from ragcun_cache.training.loop import Epoch, PairTensors, make_optimizer, run_epochs, weighted
from ragcun_cache.training.pairs import TrainingData, load_training_data

TITLE = "Training a head"
PACKAGES = ("numpy", "torch", "sentence-transformers")

# The sample of MS MARCO that the project's figures are from, where MS MARCO itself is not there.
_DATASETS, _PAIRS = ("msmarco", "msmarco-12k"), 10_000
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
    datasets: Sequence[str] = _DATASETS,
    pairs: int | None = _PAIRS,
    evaluate: Sequence[str] = _EVALUATE,
    runs: int = _RUNS,
    rounds: int = ROUNDS,
    cached_steps: int = _CACHED_STEPS,
    encoded_steps: int = _ENCODED_STEPS,
    encoders: Callable[[Home], Mapping[str, Encode]] = real_encoders,
) -> str:
    """Return the section. All of it goes through the product's own loop; only where vectors come from differs."""
    shared = {"arch": "lejepa", "pairs": pairs, "device": "cpu"}
    asked = [load_config(None, {"dataset": name, **shared}, "published") for name in datasets]
    config = cached_collection(setting, asked)
    data = load_training_data(config, setting.home)
    took = [timed_run(config, setting, evaluate) for _ in range(1 + runs)][1:]
    about = (
        f"`{config.arch}` as published: {len(data.train_p2):,} pairs of {config.dataset}, {config.epochs} epochs of "
        f"batches of {config.batch_size}, {data.caches.passage.dim} dimensions, on the CPU, {torch.get_num_threads()} "
        "threads."
    )
    bound = _bound_section(config, data, rounds, cached_steps)
    bound += _on_one_thread(lambda: _bound_section(config, data, rounds, cached_steps))
    in_loop = _encoded_section(config, data, rounds, cached_steps, encoded_steps, encoders(setting.home), setting.home)
    return paragraphs(about, *_run_section(took, config, evaluate), *bound, *in_loop)


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


def _tensors(data: TrainingData, rows_p2: NDArray[np.int64]) -> PairTensors:
    return PairTensors(*(torch.from_numpy(array) for array in (data.query_nd, data.passage_nd, rows_p2)))


def _bound_section(config: TrainConfig, data: TrainingData, rounds: int, steps: int) -> tuple[str, ...]:
    """Time steps beside what they cannot do without, computed on a head's own tensors."""
    tensors = _tensors(data, data.train_p2[: steps * config.batch_size])
    steps = -(-len(tensors.train_p2) // config.batch_size)
    head, train = _epoch_of(tensors, config)
    products = _products_of_a_step(head, tensors, config)
    memory = OptimiserMemory(head)
    took = take_turns(
        {
            "step": train,
            "products": lambda: _repeat(products.compute, steps),
            "add": lambda: _repeat(memory.add, steps),
            "AdamW": lambda: _repeat(memory.adamw, steps),
        },
        rounds=rounds,
    )
    step, product = (Timing([seconds / steps for seconds in took[name].seconds]) for name in ("step", "products"))
    rates = [
        max(memory.add_bytes / add, memory.adamw_bytes / adamw) * steps
        for add, adamw in zip(took["add"].seconds, took["AdamW"].seconds, strict=True)
    ]
    moved = Timing([memory.step_bytes / rate for rate in rates])
    bound = Timing([sum(parts) for parts in zip(product.seconds, moved.seconds, strict=True)])
    about = (
        f"A step beside its bound, torch threads: {torch.get_num_threads()}. Medians of {rounds} rounds of {steps}. "
        "The products are those of a step, forward and backward, noted while it ran and computed again with its own "
        "tensors. The memory is what AdamW reads and writes of weights, gradients and two moments, and EMA of target "
        "and weights, at the rate of AdamW alone or of adding in place, whichever is faster, over arrays as large. Not "
        "in the bound: the norm of the gradients, dropout, activations, losses, Python."
    )
    gigabytes, gflop = memory.step_bytes / 1e9, products.flop / 1e9
    rows: list[list[object]] = [
        ["a step", step.spread.scaled(1e3), "", ""],
        ["its matrix products", product.spread.scaled(1e3), f"{gflop:.3f} GFLOP", f"{product.rate(gflop)} GFLOP/s"],
        ["AdamW's and EMA's memory", moved.spread.scaled(1e3), f"{gigabytes:.3f} GB", f"{moved.rate(gigabytes)} GB/s"],
        ["the bound: both", bound.spread.scaled(1e3), "", ""],
    ]
    share = bound.over(step).scaled(100)
    return about, paragraphs(table(["", "ms", "work", "rate"], rows), f"A step reaches {share} % of the bound.")


def _on_one_thread(section: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the section as measured on one thread, as `ablate` trains many runs side by side; nothing if it was."""
    threads = torch.get_num_threads()
    if threads == 1:
        return ()
    torch.set_num_threads(1)
    try:
        return section()
    finally:
        torch.set_num_threads(threads)


def _repeat(way: Callable[[], object], times: int) -> None:
    """Call ``way`` so many times, its result given back before the next call as a step gives back its gradients."""
    for _ in range(times):
        way()


def _products_of_a_step(head: Head, tensors: PairTensors, config: TrainConfig) -> MatrixProducts:
    head.train()
    batch = tensors.batch(torch.arange(min(config.batch_size, len(tensors.train_p2))))
    products = MatrixProducts()
    with products:
        weighted(head.losses(batch, 0), config).backward()  # type: ignore[no-untyped-call]
    return products


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
    sources = {"cache": _tensors(data, drawn[: cached_steps * config.batch_size])} | {
        name: EncodedPairs(nothing, nothing, numbered, texts, encode) for name, encode in encoders.items()
    }
    epochs = take_turns({name: _epoch_of(pairs, config)[1] for name, pairs in sources.items()}, rounds=rounds)
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


def _epoch_of(pairs: PairTensors, config: TrainConfig) -> tuple[Head, Callable[[], list[Epoch]]]:
    """Return a head that is built now, so that building is not timed, and a function that trains it for an epoch."""
    dim = pairs.query_nd.shape[1]
    head = build_head(config.head_config(dim), seed=0)
    optimizer = make_optimizer(head, config)
    once = config.model_copy(update={"epochs": 1})
    return head, lambda: list(run_epochs(head, pairs, once, optimizer, first_epoch=1))
