"""Vectors that need not be computed again, because some cache of the same spec holds the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ragcun_cache.cache.pair import list_caches
from ragcun_cache.cache.reader import EmbeddingCache
from ragcun_cache.errors import CacheError
from ragcun_cache.files import sha256_file

_SHA_BYTES = 32
_COLUMNS = ("text_sha256", "n_tokens", "truncated", "norm")


@dataclass(frozen=True)
class FoundRows:
    """Rows that were found, each column in the order of ``wanted``.

    Attributes:
        wanted: (found,) int64, which of the texts asked for these are.
        vectors_nd: (found, dim) in the stored dtype, bit for bit.
        n_tokens: (found,) int32.
        truncated: (found,) bool.
        norms: (found,) float32.
    """

    wanted: NDArray[np.int64]
    vectors_nd: NDArray[np.floating]
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    norms: NDArray[np.float32]


class VectorPool:
    """The rows of every cache of one spec, whatever collection they belong to, by the sha256 of their text.

    Memory: about 20 bytes a row. A shard is compared with its checksum before the first row is copied from it, so
    damage does not spread.
    """

    def __init__(self, caches: Path, fingerprint: str, exclude: Path) -> None:
        """Look through the caches below ``caches`` that have this fingerprint, other than the one at ``exclude``."""
        self._caches: list[EmbeddingCache] = []
        keys, sources, shards, rows = [], [], [], []
        for layout, manifest in list_caches(caches):
            if manifest.fingerprint != fingerprint or layout.folder == exclude or not manifest.rows:
                continue
            try:
                cache = EmbeddingCache(layout.folder, allow_incomplete=True)
                columns = [_sha_keys(cache.rows_table(index, ["text_sha256"])) for index in range(len(manifest.shards))]
            except CacheError:
                continue  # A damaged cache gives nothing; `caches verify` says what is wrong with it.
            for index, shard_keys in enumerate(columns):
                keys.append(shard_keys)
                sources.append(np.full(len(shard_keys), len(self._caches), np.int32))
                shards.append(np.full(len(shard_keys), index, np.int32))
                rows.append(np.arange(len(shard_keys), dtype=np.int32))
            self._caches.append(cache)
        order = np.argsort(_joined(keys, np.uint64), kind="stable")
        self._keys = _joined(keys, np.uint64)[order]
        self._sources = _joined(sources, np.int32)[order]
        self._shards = _joined(shards, np.int32)[order]
        self._rows = _joined(rows, np.int32)[order]
        self._sound: dict[tuple[int, int], bool] = {}

    def __len__(self) -> int:
        """Return the number of rows in the pool."""
        return len(self._keys)

    @property
    def dim(self) -> int | None:
        """Dimensions of the vectors; None for an empty pool."""
        return self._caches[0].dim if self._caches else None

    def holds(self, text_sha256: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return which of these hashes (32 bytes each) are in the pool, going by their first 8 bytes alone."""
        return np.isin(_keys_of(text_sha256), self._keys)

    def find(self, text_sha256: Sequence[bytes]) -> FoundRows | None:
        """Return the rows whose text has one of these hashes (32 bytes each); None if there is none."""
        if not len(self) or not text_sha256:
            return None
        asked = _keys_of(text_sha256)
        at = np.minimum(np.searchsorted(self._keys, asked), len(self) - 1)
        wanted = np.flatnonzero(self._keys[at] == asked)
        parts: list[tuple[NDArray[np.int64], dict[str, Any]]] = []
        places = np.stack([self._sources[at[wanted]], self._shards[at[wanted]]], axis=1)
        for source, shard in np.unique(places, axis=0).tolist():
            chosen = wanted[(places == (source, shard)).all(axis=1)]
            try:
                part = self._copy(source, shard, self._rows[at[chosen]], chosen, text_sha256)
            except (OSError, CacheError):
                continue  # Somebody removed or converted it meanwhile; these rows are encoded.
            if part is not None:
                parts.append(part)
        if not parts:
            return None
        return FoundRows(
            wanted=np.concatenate([chosen for chosen, _ in parts]),
            **{name: np.concatenate([columns[name] for _, columns in parts]) for name in parts[0][1]},
        )

    def _copy(
        self,
        source: int,
        shard: int,
        rows: NDArray[np.int32],
        wanted: NDArray[np.int64],
        text_sha256: Sequence[bytes],
    ) -> tuple[NDArray[np.int64], dict[str, Any]] | None:
        cache = self._caches[source]
        if not self._is_sound(source, shard):
            return None
        table = cache.rows_table(shard, _COLUMNS).take(pa.array(rows))
        # The first 8 bytes brought us here; only the whole hash says that it is the same text.
        hashes = table.column("text_sha256").to_pylist()
        same = np.array([text_sha256[row] == found for row, found in zip(wanted, hashes, strict=True)], dtype=bool)
        columns = {
            "vectors_nd": cache.shard(shard)[rows][same],
            "n_tokens": table.column("n_tokens").to_numpy()[same],
            "truncated": np.asarray(table.column("truncated").to_pylist(), dtype=bool)[same],
            "norms": table.column("norm").to_numpy()[same],
        }
        return wanted[same], columns

    def _is_sound(self, source: int, shard: int) -> bool:
        key = (source, shard)
        if key not in self._sound:
            cache = self._caches[source]
            record = cache.manifest.shards[shard]
            self._sound[key] = all(sha256_file(cache.folder / file.name) == file.sha256 for file in record.files)
        return self._sound[key]


def text_keys(cache: EmbeddingCache) -> NDArray[np.uint64]:
    """Return (rows,) uint64: the first 8 bytes of every row's text hash."""
    tables = (cache.rows_table(index, ["text_sha256"]) for index in range(len(cache.manifest.shards)))
    return _joined([_sha_keys(table) for table in tables], np.uint64)


def _keys_of(text_sha256: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(text_sha256), np.uint64).reshape(-1, _SHA_BYTES // 8)[:, 0]


def _sha_keys(table: pa.Table) -> NDArray[np.uint64]:
    column = table.column("text_sha256").combine_chunks()
    if not len(column):
        return np.empty(0, np.uint64)
    flat = np.frombuffer(column.buffers()[1], np.uint64)
    start = column.offset * _SHA_BYTES // 8
    return flat[start : start + len(column) * _SHA_BYTES // 8].reshape(-1, _SHA_BYTES // 8)[:, 0].copy()


def _joined(parts: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])
