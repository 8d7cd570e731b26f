"""What a recipe will take, before it is begun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

from ragcun_cache.ablation.sweep import Sweep, SweepRun, shorter_runs
from ragcun_cache.heads.store import HeadRecord, list_heads
from ragcun_cache.training.config import TrainConfig
from ragcun_cache.training.pairs import TrainingData

_PROBE_STEPS = 5
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Estimate:
    """Runs to do, how long they take together, and the bytes that their heads will fill.

    ``probed`` of them are of a kind that was timed for this, by a few steps; the others by earlier runs.
    """

    runs: int
    seconds: float
    bytes: int
    probed: int


@dataclass(frozen=True)
class _Pace:
    """Seconds of a training step, and of measuring a head on all passages of its training caches."""

    step: float
    measure: float


def estimate(sweep: Sweep, runs: Sequence[SweepRun], *, jobs: int, threads: int) -> Estimate:
    """Estimate what it takes to carry out ``runs``, ``jobs`` at a time.

    Steps are timed by earlier runs of the same kind (architecture, dimensions, batch, data, threads), or else by a
    few steps now; evaluating by the time that it takes to measure on dev, in proportion to the passages. Runs that a
    longer one leaves on its way are only evaluated. All of it takes as long as its longest run at least.
    """
    known = _known_paces(list_heads(sweep.home.heads))
    probed_kinds: set[str] = set()
    left_behind = _left_behind(sweep, runs)
    seconds, size, probed = [0.0], 0, 0
    for number, run in enumerate(runs):
        config, data = run.planned.config, sweep.bench.data(run.planned.config)
        kind = _kind(
            config.model_dump(mode="json"),
            data.caches.passage.dim,
            data.caches.collection,
            len(data.train_p2),
            threads,
        )
        if kind not in known:
            known[kind] = _probe(config, data, threads)
            probed_kinds.add(kind)
        probed += kind in probed_kinds
        passages = sum(subject.pair.passage.rows for subject in sweep.bench.subjects(data.caches.vectors))
        own_seconds = known[kind].measure * passages / max(data.caches.passage.rows, 1)
        if sweep.head(run) is None:
            size += _head_bytes(config, data)
            if number not in left_behind:
                steps = config.epochs * ceil(len(data.train_p2) / config.batch_size)
                own_seconds += steps * known[kind].step + (config.epochs + 1) * known[kind].measure
        seconds.append(own_seconds)
    return Estimate(len(runs), max(sum(seconds) / max(1, jobs), *seconds), size, probed)


def _left_behind(sweep: Sweep, runs: Sequence[SweepRun]) -> set[int]:
    """Return the positions of the runs that a longer one, which is still to be trained, leaves on its way."""
    shorter = shorter_runs([run.planned for run in runs])
    return {number for longest, numbers in shorter.items() if sweep.head(runs[longest]) is None for number in numbers}


def _kind(train: dict[str, Any], in_dim: int, collection: str, pairs: int, threads: int) -> str:
    names = ("arch", "out_dim", "init", "batch_size", "device", "dtype", "precision")
    parts = [train.get(name) for name in names] + [train.get("ema") is None, in_dim, collection, pairs, threads]
    return repr([str(part) for part in parts])


def _known_paces(records: Sequence[HeadRecord]) -> dict[str, _Pace]:
    found: dict[str, list[_Pace]] = {}
    for kind, pace in _timed(records):
        found.setdefault(kind, []).append(pace)
    return {
        kind: _Pace(median(one.step for one in paces), median(one.measure for one in paces))
        for kind, paces in found.items()
    }


def _timed(records: Sequence[HeadRecord]) -> Iterator[tuple[str, _Pace]]:
    """Yield the pace of every head, by the epoch that its weights are from."""
    for record in records:
        about = record.provenance
        row, train, threads = about.get("metrics"), about.get("train"), about.get("threads")
        if not (record.complete and row and train and threads) or (train["epochs"] and not row["steps"]):
            continue
        kind = _kind(train, record.config.in_dim, about["caches"]["collection"], about["train_pairs"], threads)
        yield kind, _Pace(row["train_seconds"] / max(row["steps"], 1), row["measure_seconds"])


def _probe(config: TrainConfig, data: TrainingData, threads: int) -> _Pace:
    """Time a few steps, and one measurement, of a head that is then forgotten."""
    import time

    import torch

    from ragcun_cache.device import resolve_device
    from ragcun_cache.heads.registry import build_head
    from ragcun_cache.training.diagnostics import measure_head
    from ragcun_cache.training.loop import PairTensors, make_optimizer, run_epochs

    torch.set_num_threads(threads)
    device = resolve_device(config.device)
    head = build_head(config.head_config(data.caches.passage.dim), seed=config.seed).to(device)
    step = 0.0
    if config.epochs:
        few = data.train_p2[: _PROBE_STEPS * config.batch_size]
        pairs = PairTensors(
            torch.from_numpy(data.query_nd).to(device),
            torch.from_numpy(data.passage_nd).to(device),
            torch.from_numpy(few).to(device),
        )
        # The first epoch warms up, the second is timed.
        twice = config.model_copy(update={"epochs": 2})
        *_, timed = run_epochs(head, pairs, twice, make_optimizer(head, config), first_epoch=1)
        step = timed.seconds / timed.steps
    started = time.perf_counter()
    measure_head(head, data)
    return _Pace(step, time.perf_counter() - started)


def _head_bytes(config: TrainConfig, data: TrainingData) -> int:
    from ragcun_cache.heads.registry import build_empty_head

    weights = build_empty_head(config.head_config(data.caches.passage.dim)).state_dict()
    return _FLOAT_BYTES * sum(int(tensor.numel()) for tensor in weights.values())
