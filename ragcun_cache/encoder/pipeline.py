"""The encode: texts of a collection in, a complete cache out, from wherever the last attempt stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from ragcun_cache.cache import CacheLayout, CacheWriter, EmbeddingCache, Manifest, Shard, list_caches
from ragcun_cache.cache.pair import made_at
from ragcun_cache.cache.reuse import FoundRows, VectorPool, text_keys
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.batches import plan_batches
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.frozen import FrozenModel
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
        copied: rows whose vectors another cache of the same spec had already.
        dropped: rows of the collection's last version, if there was one, whose text is gone.
        seconds: of this call.
    """

    role: Role
    folder: Path
    manifest: Manifest
    encoded: int
    copied: int
    dropped: int
    seconds: float


def encode_collection(collection: Collection, home: Home, config: EncodeConfig) -> list[EncodeReport]:
    """Make sure that the queries and passages of ``collection`` are cached, encoding only texts that no cache holds.

    All texts of a role are read and checked before the first of them is encoded (queries come before passages); a
    collection that is already cached is answered without importing torch.

    Raises:
        CollectionError: the collection cannot be read; nothing that is cached was touched.
        EncoderError: the model cannot be had, or a text does not fit in memory.
        CacheError: another process writes the same cache, or the disk is full or failing.
    """
    weights = find_weights(config.model, home)
    config = _with_cached_precision(collection, home, config, weights)
    model: FrozenModel | None = None
    reports = []
    for role in Role:
        content = collection.content_sha256(role)
        if config.precision == "auto":
            model = FrozenModel(weights, config)
            config = model.config
        if finished := _finished(collection, home, config, weights, role, content):
            manifest = EmbeddingCache(finished.folder).manifest
            reports.append(EncodeReport(role, finished.folder, manifest, 0, 0, 0, 0.0))
            continue
        model = model or FrozenModel(weights, config)
        reports.append(_encode_role(collection, role, home, model, content))
    return reports


def _encode_role(collection: Collection, role: Role, home: Home, model: FrozenModel, content: str) -> EncodeReport:
    started = time.monotonic()
    total_rows = sum(len(batch.ids) for batch in collection.texts(role))
    spec = model.spec(role)
    layout = CacheLayout.of(home.caches, collection.name, role, spec.fingerprint, content)
    pool = VectorPool(home.caches, spec.fingerprint, exclude=layout.folder)
    config = model.config
    asked = Manifest(
        collection=collection.name,
        role=role,
        content_sha256=content,
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        encoder=spec.encoder,
        dim=pool.dim or model.backend.dim,
        dtype=spec.storage_dtype,
        format=config.format,
        shard_rows=config.shard_rows or _shard_rows(total_rows),
        total_rows=total_rows,
        provenance={
            "created": datetime.now(UTC).isoformat(),
            "device": config.device,
            "batch_tokens": config.batch_tokens,
            "machine": machine(),
            "versions": library_versions(),
            "commit": source_commit(),
        },
    )
    with CacheWriter(layout, asked) as writer:
        encoded, copied = _write_shards(collection, role, model, pool, writer)
        if collection.content_sha256(role) != content:
            raise CacheError(
                "the collection changed while it was encoded", where=collection.folder, fix="run the same again"
            )
        seconds = time.monotonic() - started
        manifest = writer.finish(seconds=round(seconds, 3), rows_copied=copied)
    return EncodeReport(role, layout.folder, manifest, encoded, copied, _dropped(home, layout, manifest), seconds)


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


def _finished(
    collection: Collection, home: Home, config: EncodeConfig, weights: Weights, role: Role, content: str
) -> CacheLayout | None:
    """Return the complete cache that answers this request, if there is one and its precision is settled."""
    if config.precision == "auto":
        return None
    fingerprint = EncoderSpec.of(weights, role, config, config.precision).fingerprint
    for layout, manifest in list_caches(home.caches, collection.name):
        if manifest.complete and (manifest.fingerprint, manifest.content_sha256) == (fingerprint, content):
            return layout
    return None


def _with_cached_precision(collection: Collection, home: Home, config: EncodeConfig, weights: Weights) -> EncodeConfig:
    """Settle ``auto`` on a precision in which both roles are cached: queries and passages must agree in it."""
    if config.precision != "auto" or not list_caches(home.caches, collection.name):
        return config
    content = {role: collection.content_sha256(role) for role in Role}
    for precision in _PRECISIONS:
        settled = config.model_copy(update={"precision": precision})
        if all(_finished(collection, home, settled, weights, role, content[role]) for role in Role):
            return settled
    return config


def _shard_rows(total_rows: int) -> int:
    """Rows a shard: few enough that a crash costs minutes, many enough that a large cache has some hundred files."""
    rows = _MIN_SHARD_ROWS
    while rows < _MAX_SHARD_ROWS and rows * _SHARDS_AIMED_AT < total_rows:
        rows *= 2
    return rows


def text_blocks(collection: Collection, role: Role, rows: int) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (ids, composed texts) of ``rows`` records at a time, the last block shorter: what makes up the shards."""
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


def _write_shards(
    collection: Collection, role: Role, model: FrozenModel, pool: VectorPool, writer: CacheWriter
) -> tuple[int, int]:
    """Append every shard that is not there yet; return how many rows were encoded and how many copied."""
    manifest = writer.manifest
    if manifest.complete:
        return 0, 0
    shards_there, missing = len(manifest.shards), manifest.total_rows - manifest.rows
    copied = 0
    spec = model.spec(role)
    recorded = EmbeddingCache.unchecked(writer.place, manifest)
    label = f"encode {collection.name} {'queries' if role is Role.QUERY else 'passages'}"
    with progress(label, "rows", missing) as advance:
        for index, (ids, texts) in enumerate(text_blocks(collection, role, manifest.shard_rows)):
            hashes = text_hashes(spec, texts)
            if index < shards_there:
                _check_recorded(recorded, index, ids, hashes)
            else:
                found = pool.find(hashes)
                writer.append(encode_shard(ids, texts, spec, lambda: model.backend, advance, found, manifest.dim))
                copied += 0 if found is None else len(found.wanted)
    return missing - copied, copied


def _check_recorded(cache: EmbeddingCache, index: int, ids: list[str], hashes: list[bytes]) -> None:
    """Compare a shard of an earlier attempt with the texts as they are: a file may change and change back meanwhile."""
    rows = cache.rows_table(index, ["id", "text_sha256"])
    if rows.column("id").to_pylist() != ids or rows.column("text_sha256").to_pylist() != hashes:
        raise CacheError(
            f"shard {index} is of other texts than the collection has now",
            where=cache.address,
            fix=f"ragcun-cache caches gc --delete {cache.address}, then encode again",
        )


def text_hashes(spec: EncoderSpec, texts: list[str]) -> list[bytes]:
    """Return the sha256 of every string that is encoded, prompt included."""
    return [sha256((spec.prompt + text).encode("utf-8", "surrogatepass")).digest() for text in texts]


def encode_shard(
    ids: list[str],
    texts: list[str],
    spec: EncoderSpec,
    backend_of: Callable[[], Backend],
    advance: Advance,
    found: FoundRows | None,
    dim: int,
) -> Shard:
    """Return the shard of these rows: what was ``found`` is copied, the rest encoded.

    A row is padded to a length that depends on its text alone, so neither what it is batched with nor whether the
    encode was interrupted changes its vector.

    Raises:
        EncoderError: a vector is not finite.
    """
    strings = [spec.prompt + text for text in texts]
    vectors_nd = np.empty((len(ids), dim), dtype=spec.storage_dtype)
    norms = np.empty(len(ids), dtype=np.float32)
    n_tokens = np.empty(len(ids), dtype=np.int32)
    truncated = np.empty(len(ids), dtype=bool)
    missing = np.ones(len(ids), dtype=bool)
    if found is not None:
        rows = found.wanted
        vectors_nd[rows], norms[rows] = found.vectors_nd, found.norms
        n_tokens[rows], truncated[rows] = found.n_tokens, found.truncated
        missing[rows] = False
        advance(len(rows))
    to_encode = np.flatnonzero(missing)
    if len(to_encode):
        backend = backend_of()
        tokens = backend.tokenise([strings[row] for row in to_encode])
        n_tokens[to_encode], truncated[to_encode] = tokens.n_tokens, tokens.truncated
        for batch in plan_batches(tokens.n_tokens.tolist(), backend.batch_tokens, spec.max_seq_length):
            unit_bd, norm_b = backend.embed([tokens.input_ids[row] for row in batch.rows], batch.length)
            rows = to_encode[batch.rows]
            if not np.isfinite(unit_bd).all():
                bad = rows[int(np.flatnonzero(~np.isfinite(unit_bd).all(axis=1))[0])]
                raise EncoderError(
                    "the encoder returned a vector that is not finite",
                    where=f"{spec.role} {ids[bad]!r}",
                    fix="encode with --precision fp32",
                )
            vectors_nd[rows], norms[rows] = unit_bd, norm_b
            advance(len(rows), tokens=float(n_tokens[rows].sum()))
    return Shard(ids, vectors_nd, text_hashes(spec, texts), n_tokens, truncated, norms)
