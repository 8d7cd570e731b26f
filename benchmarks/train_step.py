"""A step of training beside what it cannot do without: its matrix products and the memory its optimiser moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.published_run import DATASETS, PAIRS, epoch_of, published_run, tensors_of
from benchmarks.setting import Setting
from benchmarks.step_bound import BareSteps, MatrixProducts, OptimiserMemory
from benchmarks.timing import Timing, take_turns
from ragcun_cache.heads.head import Head
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.training.config import Precision, TrainConfig
from ragcun_cache.training.loop import PairTensors, losses_of, weighted
from ragcun_cache.training.pairs import TrainingData

TITLE = "A training step and its bound"
PACKAGES = ("numpy", "torch")

# Many short turns: the speed of a shared machine drifts within seconds.
_ROUNDS, _STEPS = 15, 40


def run(
    setting: Setting,
    *,
    datasets: Sequence[str] = DATASETS,
    pairs: int | None = PAIRS,
    rounds: int = _ROUNDS,
    steps: int = _STEPS,
) -> str:
    """Return the section: with as many threads as torch takes, as ``train-head``, and with one, as ``ablate``."""
    config, data = published_run(setting, datasets, pairs)
    about = (
        f"`{config.arch}` as published: pairs of {config.dataset} in batches of {config.batch_size}, "
        f"{data.caches.passage.dim} dimensions, on the CPU; `train-head` takes all threads, each run of `ablate` one. "
        f"Medians of {rounds} rounds of {steps} steps. The products are those of a step, forward and backward, noted "
        "while it ran and computed again with its own tensors. The memory is what AdamW reads and writes of weights, "
        "gradients and two moments, and EMA of target and weights, at the rate of AdamW alone or of adding in place, "
        "whichever is faster, over arrays as large. Both are measured in turns, as a step has them, so that each finds "
        "the caches as the other leaves them; below the bound they stand as they are when either is repeated by "
        "itself, which no step does. Not in the bound: the norm of the gradients, dropout, activations, losses, "
        "Python. In bf16 the layers are computed with `--set precision=bf16`; that has another bound."
    )
    threads = torch.get_num_threads()
    parts = [_beside_bound(config, data, rounds, steps)]
    if threads > 1:
        torch.set_num_threads(1)
        try:
            parts.append(_beside_bound(config, data, rounds, steps))
        finally:
            torch.set_num_threads(threads)
    return paragraphs(about, *parts)


def _beside_bound(config: TrainConfig, data: TrainingData, rounds: int, steps: int) -> str:
    """Time steps beside what they cannot do without, computed on a head's own tensors."""
    tensors = tensors_of(data, data.train_p2[: steps * config.batch_size])
    steps = -(-len(tensors.train_p2) // config.batch_size)
    head, train = epoch_of(tensors, config)
    _, train_in_bf16 = epoch_of(tensors, config.model_copy(update={"precision": Precision.BF16}))
    products = _products_of_a_step(head, tensors, config)
    memory = OptimiserMemory(head)
    bare = BareSteps(products, memory)
    took = take_turns(
        {
            "step": train,
            "step in bf16": train_in_bf16,
            "bare": lambda: bare.take(steps),
            "products": lambda: _repeat(products.compute, steps),
            "AdamW": lambda: _repeat(memory.adamw, steps),
            "add": lambda: _repeat(memory.add, steps),
        },
        rounds=rounds,
    )
    step, step_in_bf16 = (_a_step(took[name].seconds, steps) for name in ("step", "step in bf16"))
    # The first bare steps belong to the round that is not counted.
    product, moved, bound = _bound({name: seconds[1:] for name, seconds in bare.seconds.items()}, memory, steps)
    product_alone, moved_alone, alone = _bound({name: took[name].seconds for name in bare.seconds}, memory, steps)
    gigabytes, gflop = memory.step_bytes / 1e9, products.flop / 1e9
    rows: list[list[object]] = [
        ["a step", step.spread.scaled(1e3), "", ""],
        ["its matrix products", product.spread.scaled(1e3), f"{gflop:.3f} GFLOP", f"{product.rate(gflop)} GFLOP/s"],
        ["AdamW's and EMA's memory", moved.spread.scaled(1e3), f"{gigabytes:.3f} GB", f"{moved.rate(gigabytes)} GB/s"],
        ["the bound: both", bound.spread.scaled(1e3), "", ""],
        ["the products, by themselves", product_alone.spread.scaled(1e3), "", f"{product_alone.rate(gflop)} GFLOP/s"],
        ["the memory, by itself", moved_alone.spread.scaled(1e3), "", f"{moved_alone.rate(gigabytes)} GB/s"],
    ]
    return paragraphs(
        f"Threads: {torch.get_num_threads()}.",
        table(["", "ms", "work", "rate"], rows),
        f"A step reaches {bound.over(step).scaled(100)} % of the bound, {alone.over(step).scaled(100)} % of the sum of "
        f"both by themselves. In bf16 it takes {step_in_bf16.spread.scaled(1e3)} ms, "
        f"{step_in_bf16.over(step)} of that in fp32.",
    )


def _bound(seconds: Mapping[str, list[float]], memory: OptimiserMemory, steps: int) -> tuple[Timing, Timing, Timing]:
    """Return what a step's products, its memory and both take, from the ``seconds`` of so many steps a round."""
    product = _a_step(seconds["products"], steps)
    rates = [
        max(memory.add_bytes / add, memory.adamw_bytes / adamw) * steps
        for add, adamw in zip(seconds["add"], seconds["AdamW"], strict=True)
    ]
    moved = Timing([memory.step_bytes / rate for rate in rates])
    return product, moved, Timing([sum(parts) for parts in zip(product.seconds, moved.seconds, strict=True)])


def _a_step(seconds: Sequence[float], steps: int) -> Timing:
    return Timing([taken / steps for taken in seconds])


def _repeat(way: Callable[[], object], times: int) -> None:
    """Call ``way`` so many times, its result given back before the next call as a step gives back its gradients."""
    for _ in range(times):
        way()


def _products_of_a_step(head: Head, tensors: PairTensors, config: TrainConfig) -> MatrixProducts:
    head.train()
    batch = tensors.batch(torch.arange(min(config.batch_size, len(tensors.train_p2))))
    products = MatrixProducts()
    with products:
        weighted(losses_of(head, batch, 0, config), config).backward()  # type: ignore[no-untyped-call]
    return products
