"""The encode: texts of a collection in, a complete cache out, from wherever the last attempt stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from ragcun_cache.cache import CacheLayout, CacheWriter, EmbeddingCache, Manifest, Shard, list_caches
from ragcun_cache.collections import Collection
from ragcun_cache.device import resolve_device
from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.batches import plan_batches
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.template import compose_text
from ragcun_cache.encoder.weights import Weights, find_weights
from ragcun_cache.errors import CacheError, EncoderError
from ragcun_cache.home import Home
from ragcun_cache.progress import Advance, progress
from ragcun_cache.provenance import library_versions, machine, source_commit
from ragcun_cache.role import Role

_MIN_SHARD_ROWS, _MAX_SHARD_ROWS, _SHARDS_AIMED_AT = 512, 65_536, 64
_PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class EncodeReport:
    """What an encode did for one role.

    Attributes:
        role: queries or passages.
        folder: the cache.
        manifest: as it is now.
        encoded: rows that went through the model in this call; 0 when the cache was complete.
        seconds: of this call.
    """

    role: Role
    folder: Path
    manifest: Manifest
    encoded: int
    seconds: float


def encode_collection(collection: Collection, home: Home, config: EncodeConfig) -> list[EncodeReport]:
    """Make sure that the queries and passages of ``collection`` are cached, encoding what is not.

    Every text is read and checked before the model is loaded, so bad input costs seconds, not hours; a collection that
    is already cached is answered without importing torch.

    Raises:
        CollectionError: the collection cannot be read; nothing that is cached was touched.
        EncoderError: the model cannot be had, or a text does not fit in memory.
        CacheError: another process writes the same cache, or the disk is full or failing.
    """
    weights = find_weights(config.model, home)
    backend: Backend | None = None
    reports = []
    for role in Role:
        started = time.monotonic()
        content = collection.content_sha256(role)
        finished = _finished(collection, home, config, weights, role, content)
        if finished:
            manifest = EmbeddingCache(finished.folder).manifest
            reports.append(EncodeReport(role, finished.folder, manifest, 0, time.monotonic() - started))
            continue
        total_rows = sum(len(batch.ids) for batch in collection.texts(role))
        if backend is None:
            config, backend = _load(config, weights)
        assert config.precision != "auto"
        spec = EncoderSpec.of(weights, role, config, config.precision)
        asked = Manifest(
            collection=collection.name,
            role=role,
            content_sha256=content,
            spec=spec.to_dict(),
            fingerprint=spec.fingerprint,
            encoder=spec.encoder,
            dim=backend.dim,
            dtype=spec.storage_dtype,
            format=config.format,
            shard_rows=config.shard_rows or _shard_rows(total_rows),
            total_rows=total_rows,
            provenance=_provenance(config, backend),
        )
        layout = CacheLayout.of(home.caches, collection.name, role, spec.fingerprint, content)
        with CacheWriter(layout, asked) as writer:
            encoded = _write_shards(collection, role, spec, backend, writer)
            if collection.content_sha256(role) != content:
                raise CacheError(
                    "the collection changed while it was encoded", where=collection.folder, fix="run the same again"
                )
            seconds = time.monotonic() - started
            earlier = writer.manifest.provenance.get("seconds", 0.0)
            manifest = writer.finish(seconds=round(earlier + seconds, 3))
        reports.append(EncodeReport(role, layout.folder, manifest, encoded, seconds))
    return reports


def _finished(
    collection: Collection, home: Home, config: EncodeConfig, weights: Weights, role: Role, content: str
) -> CacheLayout | None:
    """Return the complete cache that answers this request; ``auto`` precision is content with any that is there."""
    precisions = _PRECISIONS if config.precision == "auto" else (config.precision,)
    complete = {
        (manifest.fingerprint, manifest.content_sha256): layout
        for layout, manifest in list_caches(home.caches, collection.name)
        if manifest.complete
    }
    if not complete:
        return None
    first = EncoderSpec.of(weights, role, config, "fp32")
    for precision in precisions:
        spec = first.model_copy(update={"precision": precision})
        if found := complete.get((spec.fingerprint, content)):
            return found
    return None


def _load(config: EncodeConfig, weights: Weights) -> tuple[EncodeConfig, Backend]:
    from ragcun_cache.encoder.torch_backend import TorchBackend, resolve_precision

    device = resolve_device(config.device)
    config = config.model_copy(update={"device": device, "precision": resolve_precision(config.precision, device)})
    spec = EncoderSpec.of(weights, Role.QUERY, config, "fp32")
    if any(module["config"].get("include_prompt") is False for module in spec.modules):
        raise EncoderError(
            "models that leave the prompt out of pooling are not supported", where=weights.folder, found=spec.modules
        )
    backend = TorchBackend(
        weights.folder, device=device, precision=config.precision, max_seq_length=spec.max_seq_length
    )
    if config.batch_tokens:
        backend.batch_tokens = config.batch_tokens
    return config, backend


def _shard_rows(total_rows: int) -> int:
    """Rows a shard: few enough that a crash costs minutes, many enough that a large cache has some hundred files."""
    rows = _MIN_SHARD_ROWS
    while rows < _MAX_SHARD_ROWS and rows * _SHARDS_AIMED_AT < total_rows:
        rows *= 2
    return rows


def _provenance(config: EncodeConfig, backend: Backend) -> dict[str, object]:
    """What may explain a difference in the last digit but is not part of a vector's identity."""
    return {
        "device": config.device,
        "batch_tokens": backend.batch_tokens,
        "machine": machine(),
        "versions": library_versions(),
        "commit": source_commit(),
    }


def _blocks(collection: Collection, role: Role, rows: int) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (ids, composed texts) of ``rows`` records at a time, the last block shorter."""
    ids: list[str] = []
    texts: list[str] = []
    for batch in collection.texts(role):
        ids += batch.ids
        texts += [compose_text(title, text) for title, text in zip(batch.titles, batch.texts, strict=True)]
        while len(ids) >= rows:
            yield ids[:rows], texts[:rows]
            ids, texts = ids[rows:], texts[rows:]
    if ids:
        yield ids, texts


def _write_shards(collection: Collection, role: Role, spec: EncoderSpec, backend: Backend, writer: CacheWriter) -> int:
    """Encode and append every shard that is not there yet; return how many rows that were."""
    manifest = writer.manifest
    shards_there, rows_there = len(manifest.shards), manifest.rows
    if manifest.complete:
        return 0
    label = f"encode {collection.name} {'queries' if role is Role.QUERY else 'passages'}"
    with progress(label, "rows", manifest.total_rows - rows_there) as advance:
        for index, (ids, texts) in enumerate(_blocks(collection, role, manifest.shard_rows)):
            if index >= shards_there:
                writer.append(_encode_shard(ids, texts, spec, backend, advance))
    return manifest.total_rows - rows_there


def _encode_shard(ids: list[str], texts: list[str], spec: EncoderSpec, backend: Backend, advance: Advance) -> Shard:
    """Encode one shard. What a row's batch is depends on its shard alone, so a resumed encode gives the same bytes."""
    strings = [spec.prompt + text for text in texts]
    tokens = backend.tokenise(strings)
    n_tokens = tokens.n_tokens
    vectors_nd = np.empty((len(ids), backend.dim), dtype=spec.storage_dtype)
    norms = np.empty(len(ids), dtype=np.float32)
    for rows in plan_batches(n_tokens.tolist(), backend.batch_tokens):
        unit_bd, norm_b = backend.embed([tokens.input_ids[row] for row in rows])
        if not np.isfinite(unit_bd).all():
            bad = rows[int(np.flatnonzero(~np.isfinite(unit_bd).all(axis=1))[0])]
            raise EncoderError(
                "the encoder returned a vector that is not finite",
                where=f"{spec.role} {ids[bad]!r}",
                fix="encode with --precision fp32",
            )
        vectors_nd[rows] = unit_bd
        norms[rows] = norm_b
        advance(len(rows), tokens=float(n_tokens[rows].sum()))
    return Shard(
        ids=ids,
        vectors_nd=vectors_nd,
        text_sha256=[sha256(string.encode("utf-8", "surrogatepass")).digest() for string in strings],
        n_tokens=n_tokens,
        truncated=tokens.truncated,
        norms=norms,
    )
