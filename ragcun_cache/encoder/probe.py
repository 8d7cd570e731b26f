"""What an encode would cost: a few rows are encoded, more are tokenised, all are counted, nothing is cached."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ragcun_cache.cache import CacheLayout, EmbeddingCache
from ragcun_cache.cache.part import Part
from ragcun_cache.cache.reuse import VectorPool
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.backend import Backend, OutOfMemory
from ragcun_cache.encoder.batches import Batch
from ragcun_cache.encoder.blocks import Block, text_blocks
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.cost import CostModel, TimedBatch, drawn_batches, planned_batches, simulate
from ragcun_cache.encoder.engines.choose import default_workers
from ragcun_cache.encoder.forward import tokenise_pieces
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.pipeline import as_cached, finished_cache, usual_shard_rows
from ragcun_cache.encoder.tokens import PackedTokens
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.home import Home
from ragcun_cache.progress import progress
from ragcun_cache.role import Role

PROBE_ROWS = 500
# A GPU's batches are so large that few have as many rows.
_LEAST_BATCHES = 24
_SAMPLE_ROWS = 20_000
_PROBE_SECONDS = 120.0
# Of what is stored of a row besides its vector and its id: mostly the hash of its text.
_ROW_BYTES = 40


@dataclass(frozen=True)
class RolePlan:
    """What is to be done for one role.

    Attributes:
        role: queries or passages.
        rows: of the collection, or of the part of it that was asked for.
        there: rows that an earlier encode has finished.
        to_copy: rows whose vectors another cache holds.
        to_encode: all others.
        tokens: of the rows to encode, estimated where there are too many to count.
        truncated_share: of these rows, those that are longer than the model reads.
        bytes: that will be written, about.
    """

    role: Role
    rows: int
    there: int
    to_copy: int
    to_encode: int
    tokens: int
    truncated_share: float
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """What an encode would cost on this machine.

    Attributes:
        collection: its name.
        backend: that would run the model.
        precision: of the model.
        device: that it would run on.
        roles: the work.
        seconds: estimated, from start to end.
        error: of that, relative, on either side.
        tokens_per_second: of the forward pass, padding not counted.
        pad_share: pad tokens / all tokens.
        probed_rows: rows that were encoded to find out.
        probe_seconds: that finding out took.
    """

    collection: str
    backend: str
    precision: str
    device: str
    roles: tuple[RolePlan, ...]
    seconds: float
    error: float
    tokens_per_second: float
    pad_share: float
    probed_rows: int
    probe_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, with the time in hours and its bounds."""
        hours = self.seconds / 3600
        bounds = {"hours": hours, "hours_low": hours * (1 - self.error), "hours_high": hours * (1 + self.error)}
        return {**asdict(self), **bounds}


@dataclass(frozen=True)
class _Work:
    """The rows of one role, counted, and a sample of the strings to encode, in random order."""

    role: Role
    rows: int
    there: int
    to_copy: int
    to_encode: int
    shard_rows: int
    id_bytes: int
    sample: list[str]
    dim: int


def estimate_encode(collection: Collection, home: Home, config: EncodeConfig, part: Part | None = None) -> Estimate:
    """Run some of the batches that an encode would run, cache nothing, and say what all of them would cost.

    Rows are drawn over the whole collection with a fixed seed. More are tokenised than encoded: what a row costs
    depends on its length, and lengths are cheap to know. Where an encode would run a process on each of several GPUs,
    one is timed. A model that was never converted for OpenVINO is, and stays so, but that time is not counted.

    Raises:
        CollectionError, EncoderError, CacheError, ConfigError: as the encode itself would.
    """
    started = time.perf_counter()
    weights = find_weights(config.model, home, config.model_id)
    config = as_cached(collection, home, config, weights)
    model = FrozenModel(weights, config)
    works = [_count(collection, role, home, model, part) for role in Role]
    read_seconds = time.perf_counter() - started
    to_encode, sampled = sum(work.to_encode for work in works), sum(len(work.sample) for work in works)
    load_seconds = tokenise_seconds = forward_seconds = error = 0.0
    tokens = [PackedTokens.of(()) for _ in works]
    timed: list[TimedBatch] = []
    padded, dim = 0, max(work.dim for work in works)
    if sampled:
        backend, load_seconds = _load(model, home)
        dim = backend.dim
        tokenising = time.perf_counter()
        tokens = [PackedTokens.of(tokenise_pieces(work.sample, backend)) for work in works]
        tokenise_seconds = (time.perf_counter() - tokenising) * to_encode / sampled
        limit = model.spec(Role.PASSAGE).max_seq_length
        timed = _time_batches(backend, works, tokens, limit, collection.name)
        cost = CostModel.fit(timed)
        simulated = [
            simulate(cost, one.n_tokens, work.to_encode, work.shard_rows, backend.batch_tokens, limit)
            for work, one in zip(works, tokens, strict=True)
        ]
        forward_seconds, padded = sum(one.seconds for one in simulated), sum(one.padded_tokens for one in simulated)
        forward_seconds /= default_workers(config.wanted_device)
        shares = [one.seconds for one in simulated]
        error = cost.error + float(np.average([one.error for one in simulated], weights=shares))
    around = read_seconds + tokenise_seconds
    # The forward pass keeps every core of a CPU busy, so what overlaps with it is not for nothing there.
    on_cpu = model.config.device == "cpu"
    roles = tuple(_plan(work, one, model, dim) for work, one in zip(works, tokens, strict=True))
    n_tokens = sum(role.tokens for role in roles)
    return Estimate(
        collection=collection.name,
        backend=model.config.backend,
        precision=model.config.precision,
        device=model.config.device,
        roles=roles,
        seconds=load_seconds + (forward_seconds + around if on_cpu else max(forward_seconds, around)),
        error=error,
        tokens_per_second=n_tokens / forward_seconds if forward_seconds else 0.0,
        pad_share=1.0 - n_tokens / padded if padded else 0.0,
        probed_rows=sum(one.rows for one in timed),
        probe_seconds=time.perf_counter() - started,
    )


def _load(model: FrozenModel, home: Home) -> tuple[Backend, float]:
    """Return the loaded model, and the seconds that loading it takes once it has been converted."""
    before = set(home.graphs.glob("*"))
    started = time.perf_counter()
    backend = model.backend
    if set(home.graphs.glob("*")) != before:
        started = time.perf_counter()
        backend = FrozenModel(model.weights, model.config).backend
    return backend, time.perf_counter() - started


def _count(collection: Collection, role: Role, home: Home, model: FrozenModel, part: Part | None) -> _Work:
    """Read all texts of a role and say which of them have to be encoded."""
    content = collection.content_sha256(role)
    if finished := finished_cache(collection, home, model.config, model.weights, role, content):
        rows = EmbeddingCache(finished.folder).rows
        return _Work(role, rows, rows, 0, 0, 1, 0, [], 0)
    spec = model.spec(role)
    whole = CacheLayout.of(home.caches, collection.name, role, spec.fingerprint, content)
    layout = part.layout(whole) if part else whole
    total_rows = sum(len(batch.ids) for batch in collection.texts(role))
    shard_rows, shards_there = model.config.shard_rows or usual_shard_rows(total_rows), 0
    if layout.manifest.exists():
        begun = EmbeddingCache(layout.folder, allow_incomplete=True).manifest
        shard_rows, shards_there = begun.shard_rows, len(begun.shards)
    pool = VectorPool(home.caches, spec.fingerprint, exclude=whole.folder)
    shards = (part or Part(1, 1)).shards(total_rows, shard_rows)
    rows = there = to_copy = id_bytes = 0
    drawn = _Draw()
    for index, (ids, texts) in enumerate(text_blocks(collection, role, shard_rows)):
        if index not in shards:
            continue
        rows += len(ids)
        if index < shards.start + shards_there:
            there += len(ids)
            continue
        block = Block.of(index, ids, texts, spec)
        held = pool.holds(block.text_sha256)
        to_copy += int(held.sum())
        id_bytes += sum(len(one.encode("utf-8", "surrogatepass")) for one in ids)
        drawn.add([string for string, known in zip(block.strings, held.tolist(), strict=True) if not known])
    return _Work(role, rows, there, to_copy, drawn.seen, shard_rows, id_bytes, drawn.result(), pool.dim or 0)


class _Draw:
    """Strings of a stream, each with the same chance to be drawn, in random order; the same ones every time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._kept: list[tuple[float, str]] = []
        self.seen = 0

    def add(self, strings: list[str]) -> None:
        self.seen += len(strings)
        self._kept += zip(self._random.random(len(strings)).tolist(), strings, strict=True)
        if len(self._kept) > 4 * _SAMPLE_ROWS:
            self._cut()

    def _cut(self) -> None:
        self._kept.sort()
        del self._kept[_SAMPLE_ROWS:]

    def result(self) -> list[str]:
        self._cut()
        return [string for _, string in self._kept]


def _time_batches(
    backend: Backend, works: Sequence[_Work], tokens: Sequence[PackedTokens], limit: int, name: str
) -> list[TimedBatch]:
    """Time some of the batches that the encode will make, each role's by itself, in random order.

    The longest, the shortest and one between are run before: what happens only at first does not count. On a slow
    machine the probe ends when its time is up. If a batch does not fit in memory, all are planned again for half of it.
    """
    to_encode = sum(work.to_encode for work in works)
    drawn: list[tuple[PackedTokens, Batch]] = []
    for work, one in zip(works, tokens, strict=True):
        if work.to_encode:
            share = work.to_encode / to_encode
            batches = planned_batches(one.n_tokens, work.to_encode, work.shard_rows, backend.batch_tokens, limit)
            drawn += [(one, batch) for batch in drawn_batches(batches, PROBE_ROWS * share, _LEAST_BATCHES * share)]
    timed: list[TimedBatch] = []
    order = np.random.default_rng(0).permutation(len(drawn)).tolist()
    try:
        for one, batch in (drawn[0], drawn[len(drawn) // 2], drawn[-1]):
            backend.embed([one.row(row) for row in batch.rows], batch.length)
        deadline = time.perf_counter() + _PROBE_SECONDS
        with progress(f"probe {name}", "rows", sum(len(batch.rows) for _, batch in drawn)) as advance:
            for at in order:
                one, batch = drawn[at]
                input_ids = [one.row(row) for row in batch.rows]
                started = time.perf_counter()
                backend.embed(input_ids, batch.length)
                timed.append(TimedBatch(len(batch.rows), batch.length, time.perf_counter() - started))
                advance(len(batch.rows))
                if time.perf_counter() > deadline:
                    break
    except OutOfMemory:
        if max(len(batch.rows) for _, batch in drawn) == 1:
            raise EncoderError(
                "one text does not fit in the device's memory",
                fix="encode on another device, or with a smaller --max-seq-length",
            ) from None
        backend.batch_tokens //= 2
        return _time_batches(backend, works, tokens, limit, name)
    return timed


def _plan(work: _Work, tokens: PackedTokens, model: FrozenModel, dim: int) -> RolePlan:
    new = work.to_copy + work.to_encode
    scale = work.to_encode / max(len(work.sample), 1)
    vector_bytes = dim * np.dtype(model.config.storage_dtype).itemsize
    return RolePlan(
        role=work.role,
        rows=work.rows,
        there=work.there,
        to_copy=work.to_copy,
        to_encode=work.to_encode,
        tokens=round(int(tokens.n_tokens.sum()) * scale),
        truncated_share=float(tokens.truncated.mean()) if len(tokens.truncated) else 0.0,
        bytes=new * (vector_bytes + _ROW_BYTES) + work.id_bytes,
    )
