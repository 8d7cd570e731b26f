"""The encode: texts of a collection in, a complete cache out, from wherever the last attempt stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cache.cache import CacheLayout, CacheWriter, EmbeddingCache, Manifest, list_caches
from ragcun_cache.cache.pair import made_at
from ragcun_cache.cache.part import Part
from ragcun_cache.cache.reuse import VectorPool, text_keys
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.blocks import Block, text_blocks
from ragcun_cache.encoder.config import EncodeConfig, SettledBackend, SettledPrecision
from ragcun_cache.encoder.engines import EngineConfig, open_engine
from ragcun_cache.encoder.engines.engine import Engine
from ragcun_cache.encoder.forward import Encoded
from ragcun_cache.encoder.phases import NOTHING_DONE, Phases
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.threads import Behind
from ragcun_cache.encoder.weights import Weights, find_weights
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home
from ragcun_cache.progress import progress
from ragcun_cache.provenance import library_versions, machine, source_commit
from ragcun_cache.role import Role

_DEFAULT_ENGINE = EngineConfig()
_MIN_SHARD_ROWS, _MAX_SHARD_ROWS, _SHARDS_AIMED_AT = 512, 65_536, 64
# int8 is only for those who ask for it: what asks for nothing is never answered with it.
_PRECISIONS: tuple[SettledPrecision, ...] = ("fp32", "bf16", "fp16")
_BACKENDS: tuple[SettledBackend, ...] = ("openvino", "torch")

NumberedTexts = tuple[int, tuple[list[str], list[str]]]
"""Number of a shard, and the ids and composed texts of its rows."""


@dataclass(frozen=True)
class EncodeReport:
    """What an encode did for one role.

    Attributes:
        role: queries or passages.
        folder: the cache.
        manifest: as it is now.
        encoded: rows that went through the model in this call; 0 when the cache was complete.
        copied: rows whose vectors another cache of the same spec had already.
        dropped: rows of the collection's last version, if there was one, whose text is gone.
        seconds: of this call.
        phases: where they went; some phases run at the same time.
        reason: why this backend and this precision, if they were not asked for.
        loop_seconds: of ``seconds``, from the first block that is read until the last shard is written.
    """

    role: Role
    folder: Path
    manifest: Manifest
    encoded: int
    copied: int
    dropped: int
    seconds: float
    phases: Phases = NOTHING_DONE
    reason: str = ""
    loop_seconds: float = 0.0


def encode_collection(
    collection: Collection,
    home: Home,
    config: EncodeConfig,
    engine: EngineConfig = _DEFAULT_ENGINE,
    part: Part | None = None,
) -> list[EncodeReport]:
    """Make sure that the queries and passages of ``collection`` are cached, encoding only texts that no cache holds.

    All texts of a role are read and checked before the first of them is encoded (queries come before passages); a
    collection that is already cached is answered without importing torch.

    Args:
        collection: what to encode.
        home: where models are and caches go.
        config: settings of the encode.
        engine: where the model runs.
        part: encode only this part of the shards, into a place of its own; None for all.

    Raises:
        CollectionError: the collection cannot be read; nothing that is cached was touched.
        EncoderError: the model cannot be had, or a text does not fit in memory.
        CacheError: another process writes the same cache, or the disk is full or failing.
    """
    weights = find_weights(config.model, home, config.model_id)
    config = as_cached(collection, home, config, weights)
    with ExitStack() as stack:
        opened: Engine | None = None
        reports = []
        for role in Role:
            content = collection.content_sha256(role)
            if not config.is_settled:
                opened = stack.enter_context(closing(open_engine(engine, weights, config, home)))
                config = opened.model.config
            if finished := finished_cache(collection, home, config, weights, role, content):
                manifest = EmbeddingCache(finished.folder).manifest
                reports.append(EncodeReport(role, finished.folder, manifest, 0, 0, 0, 0.0))
                continue
            opened = opened or stack.enter_context(closing(open_engine(engine, weights, config, home)))
            reports.append(encode_role(collection, role, home, opened, content, part))
    return reports


def encode_role(
    collection: Collection, role: Role, home: Home, engine: Engine, content: str, part: Part | None = None
) -> EncodeReport:
    """Encode the texts of one role, whose file has the hash ``content``, from wherever the last attempt stopped.

    Raises:
        CollectionError, EncoderError, CacheError: as :func:`encode_collection`.
    """
    started = time.monotonic()
    total_rows = sum(len(batch.ids) for batch in collection.texts(role))
    counted = Phases(read=time.monotonic() - started)
    config, spec = engine.model.config, engine.model.spec(role)
    layout = CacheLayout.of(home.caches, collection.name, role, spec.fingerprint, content)
    pool = VectorPool(home.caches, spec.fingerprint, exclude=layout.folder)
    began, before_dim = datetime.now(UTC).isoformat(), time.monotonic()
    asked = Manifest(
        collection=collection.name,
        role=role,
        content_sha256=content,
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        encoder=spec.encoder,
        dim=pool.dim or engine.dim,
        dtype=spec.storage_dtype,
        format=config.format,
        shard_rows=config.shard_rows or usual_shard_rows(total_rows),
        total_rows=total_rows,
        provenance={"created": began, "attempts": [_attempt(engine, began)]},
    )
    load = Phases(load=time.monotonic() - before_dim)
    layout = part.layout(layout) if part else layout
    with CacheWriter(layout, asked, part) as writer:
        encoded, copied, phases, loop_seconds = _write_shards(collection, role, engine, pool, writer)
        if collection.content_sha256(role) != content:
            raise CacheError(
                "the collection changed while it was encoded", where=collection.folder, fix="run the same again"
            )
        seconds, phases = time.monotonic() - started, counted + load + phases
        manifest = writer.finish(seconds=round(seconds, 3), rows_copied=copied, phases=phases.to_dict())
    dropped = 0 if part else _dropped(home, layout, manifest)
    reason = engine.model.choice.reason
    return EncodeReport(role, layout.folder, manifest, encoded, copied, dropped, seconds, phases, reason, loop_seconds)


def _attempt(engine: Engine, began: str) -> dict[str, Any]:
    """Return what one call encodes with: a cache that was resumed need not have been made by one machine."""
    config = engine.model.config
    return {
        "began": began,
        "device": config.device,
        "batch_tokens": config.batch_tokens,
        "engine": engine.name,
        "workers": engine.workers,
        "machine": machine(),
        "versions": library_versions(),
        "commit": source_commit(),
    }


def _dropped(home: Home, layout: CacheLayout, manifest: Manifest) -> int:
    """Return how many rows of the collection's last cached version have a text that is no longer in it."""
    earlier = [
        (other, found)
        for other, found in list_caches(home.caches, manifest.collection)
        if found.fingerprint == manifest.fingerprint and found.complete and other.folder != layout.folder
    ]
    if not earlier:
        return 0
    last = max(earlier, key=lambda entry: made_at(*entry))[0]
    try:
        now, before = (text_keys(EmbeddingCache(folder)) for folder in (layout.folder, last.folder))
    except CacheError:
        return 0  # The old cache is damaged, which is no reason to fail the new one.
    return int((~np.isin(before, now)).sum())


def finished_cache(
    collection: Collection, home: Home, config: EncodeConfig, weights: Weights, role: Role, content: str
) -> CacheLayout | None:
    """Return the complete cache that answers this request, if there is one and nothing is left open."""
    if not config.is_settled:
        return None
    fingerprint = EncoderSpec.of(weights, role, config).fingerprint
    for layout, manifest in list_caches(home.caches, collection.name):
        if manifest.complete and (manifest.fingerprint, manifest.content_sha256) == (fingerprint, content):
            return layout
    return None


def as_cached(collection: Collection, home: Home, config: EncodeConfig, weights: Weights) -> EncodeConfig:
    """Settle ``auto`` on a backend and precision in which both roles are cached, if there are such caches."""
    if config.is_settled or not list_caches(home.caches, collection.name):
        return config
    content = {role: collection.content_sha256(role) for role in Role}
    for precision, backend in product(_PRECISIONS, _BACKENDS):
        if config.precision in ("auto", precision) and config.backend in ("auto", backend):
            settled = config.model_copy(update={"precision": precision, "backend": backend})
            if all(finished_cache(collection, home, settled, weights, role, content[role]) for role in Role):
                return settled
    return config


def usual_shard_rows(total_rows: int) -> int:
    """Rows a shard: few enough that a crash costs minutes, many enough that a large cache has some hundred files."""
    rows = _MIN_SHARD_ROWS
    while rows < _MAX_SHARD_ROWS and rows * _SHARDS_AIMED_AT < total_rows:
        rows *= 2
    return rows


def _write_shards(
    collection: Collection, role: Role, engine: Engine, pool: VectorPool, writer: CacheWriter
) -> tuple[int, int, Phases, float]:
    """Append every shard that is not there yet, once those that are have been compared with the texts.

    Reading and tokenising run ahead of the forward pass, hashing and writing behind it, in threads of their own.

    Returns:
        rows encoded, rows copied, the phases, and the seconds of the loop over what was not there.
    """
    manifest, missing = writer.manifest, writer.missing_rows
    if manifest.finished:
        return 0, 0, NOTHING_DONE, 0.0
    spec = engine.model.spec(role)
    label = f"{collection.name} {'queries' if role is Role.QUERY else 'passages'}"
    texts = islice(enumerate(text_blocks(collection, role, manifest.shard_rows)), writer.shards.stop)
    copied, total, write_seconds = 0, _check_recorded(texts, spec, writer, label), 0.0
    loop_started = time.perf_counter()

    def write(block: Block, encoded: Encoded) -> None:
        nonlocal write_seconds
        started = time.perf_counter()
        writer.append(block.shard(encoded, manifest.dim, manifest.dtype))
        write_seconds += time.perf_counter() - started

    with progress(f"encode {label}", "rows", missing) as advance, Behind() as behind:

        def on_batch(amount: float, **extra: float) -> None:
            behind.check()
            advance(amount, **extra)

        with closing(engine.encode(_blocks(texts, spec, pool), on_batch)) as results:
            for block, encoded in results:
                behind.call(write, block, encoded)
                there = len(block.ids) - len(block.strings)
                advance(there)
                copied += there
                total += block.phases + encoded.phases
    seconds = time.perf_counter() - loop_started
    return missing - copied, copied, total + Phases(write=write_seconds), seconds


def _check_recorded(texts: Iterator[NumberedTexts], spec: EncoderSpec, writer: CacheWriter, label: str) -> Phases:
    """Take the shards that are there already, and those of earlier parts, off ``texts``; compare the first with them.

    Done in the thread that Ctrl-C interrupts, before any other is started.
    """
    shards, manifest = writer.shards, writer.manifest
    first_missing = shards.start + len(manifest.shards)
    if not first_missing:
        return NOTHING_DONE
    started = time.perf_counter()
    rows = min(first_missing * manifest.shard_rows, manifest.total_rows)
    with progress(f"check {label}", "rows", rows) as advance:
        for index, (ids, block_texts) in islice(texts, first_missing):
            if index in shards:
                block = Block.of(index, ids, block_texts, spec)
                writer.check_recorded(index - shards.start, ids, block.text_sha256)
            advance(len(ids))
    return Phases(read=time.perf_counter() - started)


def _blocks(texts: Iterator[NumberedTexts], spec: EncoderSpec, pool: VectorPool) -> Iterator[Block]:
    """Yield the block of every shard that is left in ``texts``."""
    started = time.perf_counter()
    for index, (ids, block_texts) in texts:
        block = Block.of(index, ids, block_texts, spec)
        yield block.with_found(pool.find(block.text_sha256), Phases(read=time.perf_counter() - started))
        started = time.perf_counter()
