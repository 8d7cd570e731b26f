"""Whether the bytes of a cache are still those that were written, and putting back the shards where they are not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache.layout import MANIFEST_NAME, CacheLayout, VectorFormat, cache_folder
from ragcun_cache.cache.manifest import SCHEMA_VERSION, FileRecord, Manifest, encoder_fingerprint, spec_fingerprint
from ragcun_cache.cache.pair import dated
from ragcun_cache.cache.part import Part, first_shard
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import EmbeddingCache, read_manifest
from ragcun_cache.cache.shard import Shard, file_record, write_parts
from ragcun_cache.cache.writer import writer_lock
from ragcun_cache.errors import CacheError
from ragcun_cache.files import atomic_file, sha256_file

# Rounding to float16 moves the norm of a unit vector by less than this; a vector of another kind is far outside.
_NORM_TOLERANCE = 5e-3
_NORM_BLOCK_ROWS = 4096
_THREADS = 8


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a cache.

    Attributes:
        file: name of the file.
        shard: which of the shards that are here it belongs to, None for the manifest.
        problem: what is wrong, in words.
    """

    file: str
    shard: int | None
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def verify(folder: Path, *, expected_ids: Iterable[str] | None = None) -> list[Damage]:
    """Read every byte of a cache, or of a part of one, and return what is wrong with it; nothing if it is sound.

    Checked: the manifest and its copy, that the folder is named as it says, completeness; size and sha256 of every
    file; columns and number of rows; that ids are unique and, given ``expected_ids``, the collection's in its order;
    that all values are finite and all vectors of unit norm.

    Args:
        folder: the cache.
        expected_ids: identifiers of the collection, in its order.
    """
    layout = CacheLayout(folder)
    manifest, damages = _verify_manifest(layout)
    if manifest is None:
        return damages
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:
        # sha256 and numpy let go of the interpreter, so shards are checked side by side.
        for found in pool.map(lambda index: _verify_shard(layout, manifest, index), range(len(manifest.shards))):
            damages += found
    if not any(damage.shard is not None for damage in damages):
        damages += _verify_ids(layout, manifest, expected_ids)
    return damages


def repair(folder: Path, damages: Iterable[Damage], shard_at: Callable[[int], Shard]) -> list[str]:
    """Put back what ``verify`` found, writing nothing else, and return a line for each thing that was done.

    Args:
        folder: the cache.
        damages: as ``verify`` returned them.
        shard_at: encodes the rows of the shard of this number, which counts from the start of the collection, again.

    Raises:
        CacheError: both copies of the manifest are damaged, or another process writes here.
    """
    layout = CacheLayout(folder)
    damages = list(damages)
    done: list[str] = []
    with writer_lock(layout):
        manifest = sound_manifest(folder)
        copies = (layout.manifest, layout.manifest_copy)
        for path in copies:
            if not path.exists() or path.read_bytes() != manifest.to_bytes():
                with atomic_file(path) as handle:
                    handle.write(manifest.to_bytes())
                done.append(f"{path.name}: restored from the other copy")
        manifest = dated(layout, manifest)
        for index in sorted({damage.shard for damage in damages if damage.shard is not None}):
            damaged = {damage.file for damage in damages if damage.shard == index}
            manifest, line = _repair_shard(layout, manifest, index, shard_at, damaged)
            done.append(line)
    return done


def _repair_shard(
    layout: CacheLayout, manifest: Manifest, index: int, shard_at: Callable[[int], Shard], damaged: set[str]
) -> tuple[Manifest, str]:
    old, number = manifest.shards[index], first_shard(manifest) + index
    shard = shard_at(number)
    vector_format: VectorFormat = "memmap" if old.vectors.name.endswith(".npy") else "parquet"
    files = shard.files(layout, number, vector_format)
    if [file_record(path, parts) for path, parts in files] == [*old.files]:
        for path, parts in files:
            if path.name in damaged:
                write_parts(path, parts)
        return manifest, f"shard {number}: encoded again, byte for byte what it was"
    record = shard.write(layout, number, vector_format)
    manifest = manifest.with_shard(index, record)
    manifest.write(layout)
    return manifest, f"shard {number}: encoded again; other bytes than before, as library versions or machine differ"


def sound_manifest(folder: Path) -> Manifest:
    """Return the manifest of a cache, from its spare copy if need be.

    Raises:
        CacheError: both are damaged.
    """
    manifest, _ = _verify_manifest(CacheLayout(folder))
    if manifest is None:
        versions = {_schema_version(path) for path in (CacheLayout(folder).manifest, CacheLayout(folder).manifest_copy)}
        if versions - {None, SCHEMA_VERSION}:
            read_manifest(LocalPlace(folder))  # Another version is no damage; this says so.
        raise CacheError(
            "both copies of the manifest are damaged, so nothing says what the bytes should be",
            where=folder,
            fix="remove the folder and encode again",
        )
    return manifest


def _verify_manifest(layout: CacheLayout) -> tuple[Manifest | None, list[Damage]]:
    """Return the manifest, from its copy if need be, and what is wrong with either."""
    found: dict[Path, Manifest] = {}
    damages: list[Damage] = []
    for path in (layout.manifest, layout.manifest_copy):
        try:
            found[path] = Manifest.parse(path.read_bytes(), path)
        except OSError as error:
            damages.append(Damage(path.name, None, f"cannot be read ({error.strerror})"))
        except CacheError as error:
            damages.append(Damage(path.name, None, error.problem))
    if len(found) == 2 and found[layout.manifest] != found[layout.manifest_copy]:
        # A crash between the two writes leaves the copy one step behind, never ahead.
        damages.append(Damage(layout.manifest_copy.name, None, f"differs from {MANIFEST_NAME}"))
        main, copy = found[layout.manifest], found[layout.manifest_copy]
        is_behind = (copy.rows, copy.complete) > (main.rows, main.complete)
        if is_behind or (not _fits(layout, main) and _fits(layout, copy)):
            damages.append(Damage(layout.manifest.name, None, "is older than its copy"))
            del found[layout.manifest]
    manifest = found.get(layout.manifest) or found.get(layout.manifest_copy)
    if manifest is None:
        return None, damages
    if not manifest.finished:
        rows = f"{manifest.rows:,} of {manifest.total_rows:,} rows"
        damages.append(Damage(layout.manifest.name, None, f"is not complete ({rows}); encode again, it goes on"))
    named = cache_folder(manifest.role, manifest.fingerprint, manifest.content_sha256)
    if "part" in manifest.provenance:
        named = Part.parse(manifest.provenance["part"]).layout(CacheLayout(Path(named))).folder.name
    if layout.folder.name != named:
        damages.append(Damage(layout.manifest.name, None, f"belongs into a folder named {named}"))
    if (spec_fingerprint(manifest.spec), encoder_fingerprint(manifest.spec)) != (
        manifest.fingerprint,
        manifest.encoder,
    ):
        damages.append(Damage(layout.manifest.name, None, "its fingerprint is not that of its spec"))
    return manifest, damages


def _fits(layout: CacheLayout, manifest: Manifest) -> bool:
    """Whether every file that the manifest names is there."""
    return all((layout.folder / file.name).exists() for shard in manifest.shards for file in shard.files)


def _schema_version(path: Path) -> object:
    try:
        return json.loads(path.read_bytes()).get("schema_version")
    except (OSError, ValueError, AttributeError):
        return None


def _verify_shard(layout: CacheLayout, manifest: Manifest, index: int) -> list[Damage]:
    record = manifest.shards[index]
    damages = [
        Damage(file.name, index, problem)
        for file in record.files
        if (problem := _wrong_bytes(layout.folder / file.name, file))
    ]
    if damages:
        return damages
    # The bytes are those that were written; what follows says whether they should ever have been.
    try:
        cache = EmbeddingCache.unchecked(LocalPlace(layout.folder), manifest)
        table = cache.rows_table(index)
        vectors_nd = cache.shard(index)
    except CacheError as error:
        return [Damage(record.vectors.name, index, error.problem)]
    if problem := _wrong_values(vectors_nd, table.column("norm").to_numpy()):
        damages.append(Damage(record.vectors.name, index, problem))
    return damages


def _wrong_bytes(path: Path, file: FileRecord) -> str | None:
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"{size:,} bytes instead of {file.bytes:,}"
        if sha256_file(path) != file.sha256:
            return "its sha256 is not the recorded one"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _wrong_values(vectors_nd: NDArray[np.floating], norms: NDArray[np.float32]) -> str | None:
    if not (np.isfinite(norms).all() and (norms >= 0).all()):
        return "a norm is negative or not finite"
    for start in range(0, len(vectors_nd), _NORM_BLOCK_ROWS):
        block_nd = vectors_nd[start : start + _NORM_BLOCK_ROWS].astype(np.float32)
        length_n = np.sqrt(np.einsum("nd,nd->n", block_nd, block_nd))
        if not np.isfinite(length_n).all():
            return f"row {start + int(np.flatnonzero(~np.isfinite(length_n))[0])} is not finite"
        wrong = np.abs(length_n - 1.0) > _NORM_TOLERANCE
        wrong &= norms[start : start + len(block_nd)] > 0
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            return f"row {start + row} has norm {length_n[row]:.4f} instead of 1"
    return None


def _verify_ids(layout: CacheLayout, manifest: Manifest, expected_ids: Iterable[str] | None) -> list[Damage]:
    import polars as pl

    cache = EmbeddingCache.unchecked(LocalPlace(layout.folder), manifest)
    hashes = []
    expected = iter(expected_ids) if expected_ids is not None else None
    if expected is not None and "part" in manifest.provenance:
        start = first_shard(manifest) * manifest.shard_rows
        expected = islice(expected, start, start + manifest.rows)
    for index, record in enumerate(manifest.shards):
        column = cache.rows_table(index, ["id"]).column("id")
        hashes.append(pl.Series(pl.from_arrow(column)).hash().to_numpy())
        if expected is not None:
            for row, identifier in enumerate(column.to_pylist()):
                wanted = next(expected, None)
                if wanted != identifier:
                    problem = f"row {row} is {identifier!r}, the collection has {wanted!r} there"
                    return [Damage(record.metadata.name, index, problem)]
    if expected is not None and (more := next(expected, None)) is not None:
        return [Damage(layout.manifest.name, None, f"the collection goes on after the last row, with {more!r}")]
    every = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    if (every[1:] == every[:-1]).any() and len(set(cache.ids)) != len(cache.ids):
        return [Damage(layout.manifest.name, None, "an id stands in more than one row")]
    return []
