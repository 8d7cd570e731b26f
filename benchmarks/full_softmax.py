"""Training an adapter against every passage of a corpus, beside mined hard negatives: seconds and memory by size."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from benchmarks.alone import Alone, run_alone
from benchmarks.fake_encoder import unit_vectors
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, Spread
from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.train import train_adapter
from ragcun_cache.markdown import paragraphs, table

TITLE = "Softmax over the whole corpus"
PACKAGES = ("numpy", "torch")

_SIZES = (5_000, 50_000, 500_000)
_QUERIES = 1_024
_EPOCHS = 20
_SMALL = 256
_ENOUGH_SECONDS = 2.0
_GIGABYTE = 1e9


def run(setting: Setting, *, sizes: tuple[int, ...] = _SIZES, queries: int = _QUERIES, rounds: int = ROUNDS) -> str:
    """Return the section. Each size and way has a process of its own, whose peak holds the passages in float16."""
    sizes = tuple(size for size in sizes if setting.rows is None or size <= setting.rows) or sizes[:1]
    config = AdapterConfig()
    some = f"{config.hard_negatives} mined, {config.drawn_negatives:,} drawn"
    lines = []
    training: dict[tuple[str, int], float] = {}
    for size in sizes:
        whole = run_alone(_epochs, size, queries, rounds, True)
        mined = run_alone(_epochs, size, queries, rounds, False)
        training["whole", size] = _EPOCHS * whole.result[0].median
        training["mined", size] = _EPOCHS * mined.result[0].median + mined.result[1]
        lines += [_line(size, "every passage", whole), _line(size, some, mined)]
    about = (
        f"A linear query adapter, {queries:,} queries in batches of {config.batch_size}, one relevant passage each; "
        "passages × 768, float16, random (their values do not matter for the time). Seconds of an epoch are medians of "
        f"{rounds}; what comes before (mining, finding duplicates) happens once a training; median as well. Peak "
        "memory is that of a process that does nothing else, passages and libraries included."
    )
    columns = ["passages, negatives", "s an epoch", "s before", f"s of {_EPOCHS} epochs", "peak memory, GB"]
    return paragraphs(about, table(columns, lines), _crossover(training, sizes, config))


def _line(size: int, name: str, measured: Alone[tuple[Spread, float]]) -> list[object]:
    epoch, before = measured.result
    total = before + _EPOCHS * epoch.median
    peak = measured.peak_bytes / _GIGABYTE
    return [f"{size:,}, {name}", epoch, f"{before:.2f}", f"{total:,.1f}", f"{peak:.2f}"]


def _crossover(training: dict[tuple[str, int], float], sizes: tuple[int, ...], config: AdapterConfig) -> str:
    """Say from which size on mined negatives are cheaper, by a straight line between the two sizes around it."""
    gaps = [training["whole", size] - training["mined", size] for size in sizes]
    default = f"The default changes to mined negatives above {config.full_corpus_rows:,} passages."
    if gaps[0] > 0:
        return f"Mined negatives are cheaper at all of these sizes. {default}"
    for (low, gap_low), (high, gap_high) in zip(
        list(zip(sizes, gaps, strict=True))[:-1], list(zip(sizes, gaps, strict=True))[1:], strict=True
    ):
        if gap_low <= 0 < gap_high:
            crossing = low + (high - low) * -gap_low / (gap_high - gap_low)
            return f"From about {crossing:,.0f} passages on, mined negatives take less time. {default}"
    return f"Every passage is cheaper at all of these sizes. {default}"


def _epochs(size: int, queries: int, rounds: int, whole: bool) -> tuple[Spread, float]:
    """Return seconds an epoch, and seconds that are spent before the first."""
    config = AdapterConfig(full_corpus_rows=size if whole else 0)

    def seconds(epochs: int, problem: tuple[Judgements, torch.Tensor, torch.Tensor]) -> float:
        started = time.perf_counter()
        train_adapter(config.model_copy(update={"epochs": epochs}), *problem)
        return time.perf_counter() - started

    seconds(1, _problem(_SMALL, _SMALL))  # The first training loads code, which is no part of what follows.
    problem = _problem(size, queries)
    # One epoch drowns in how much what comes before it varies, so as many are timed together as outweigh it.
    once, epochs = seconds(0, problem), 1
    while epochs < _EPOCHS and seconds(epochs, problem) - once < max(_ENOUGH_SECONDS, once):
        epochs = min(4 * epochs, _EPOCHS)
    befores, wholes = zip(*((seconds(0, problem), seconds(epochs, problem)) for _ in range(rounds)), strict=True)
    epoch = Spread.of([(whole - before) / epochs for before, whole in zip(befores, wholes, strict=True)])
    return epoch, median(befores)


def _problem(size: int, queries: int) -> tuple[Judgements, torch.Tensor, torch.Tensor]:
    """Return random judgements, query vectors (q, 768) float32 and passage vectors (size, 768) float16."""
    corpus_nd = torch.from_numpy(unit_vectors(size))
    query_md = torch.from_numpy(unit_vectors(queries, seed=1).astype(np.float32))
    rows = np.random.default_rng(0).integers(size, size=queries)
    ones = np.ones(queries)
    judgements = Judgements(np.arange(queries), np.arange(queries + 1), rows, ones.astype(np.float32), ones)
    return judgements, query_md, corpus_nd
