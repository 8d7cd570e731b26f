"""Reading a cache: ids, rows by position or id, whole arrays. Never writes, never waits for a writer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role


class EmbeddingCache:
    """The vectors of one collection's queries or passages, in collection order."""

    def __init__(self, folder: Path, *, allow_incomplete: bool = False) -> None:
        """Open ``folder`` after cheap checks: manifest checksum, completeness, and the size of every file.

        Raises:
            CacheError: it is missing, damaged or (unless ``allow_incomplete``) not finished.
        """
        self._layout = CacheLayout(folder)
        self.manifest = Manifest.read(self._layout.manifest)
        if not (self.manifest.complete or allow_incomplete):
            raise CacheError(
                "the cache is not complete",
                where=folder,
                expected=f"{self.manifest.total_rows} rows",
                found=f"{self.manifest.rows} rows",
                fix="run the same `ragcun-cache encode` again: it goes on where it stopped",
            )
        self._check_sizes()
        self._starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])

    def _check_sizes(self) -> None:
        for index, record in enumerate(self.manifest.shards):
            for path, file in (
                (self._layout.vectors(index), record.vectors),
                (self._layout.rows(index), record.metadata),
            ):
                try:
                    size: int | str = path.stat().st_size
                except FileNotFoundError:
                    size = "no file"
                if size != file.bytes:
                    raise CacheError(
                        "a shard is damaged",
                        where=path,
                        expected=f"{file.bytes} bytes",
                        found=size,
                        fix="run the same `ragcun-cache encode` with --rebuild",
                    )

    @property
    def folder(self) -> Path:
        """Where the cache lies."""
        return self._layout.folder

    @property
    def collection(self) -> str:
        """Name of the collection that was encoded."""
        return self.manifest.collection

    @property
    def role(self) -> Role:
        """Whether the rows are queries or passages."""
        return self.manifest.role

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.manifest.dim

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the full spec, role included."""
        return self.manifest.fingerprint

    @property
    def encoder(self) -> str:
        """Fingerprint that queries and passages of one encoder share."""
        return self.manifest.encoder

    @property
    def content_sha256(self) -> str:
        """Hash of the collection file that was encoded."""
        return self.manifest.content_sha256

    def _column(self, name: str) -> list[Any]:
        return [
            pq.read_table(self._layout.rows(index), columns=[name]).column(name)
            for index in range(len(self.manifest.shards))
        ]

    @cached_property
    def ids(self) -> list[str]:
        """Identifiers in row order."""
        return [identifier for column in self._column("id") for identifier in column.to_pylist()]

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """(rows,) float32: norms of the pooled vectors before normalisation."""
        columns = [column.to_numpy() for column in self._column("norm")]
        return np.concatenate([np.empty(0, np.float32), *columns]).astype(np.float32, copy=False)

    @cached_property
    def _position_of(self) -> dict[str, int]:
        return {identifier: position for position, identifier in enumerate(self.ids)}

    def shard(self, index: int) -> NDArray[np.floating]:
        """Return the memory-mapped (rows, dim) vectors of one shard, in the stored dtype, without copying.

        Raises:
            CacheError: the file's header disagrees with the manifest.
        """
        path = self._layout.vectors(index)
        try:
            vectors_nd: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise CacheError("a shard is damaged", where=path, found=error) from None
        expected = ((self.manifest.shards[index].rows, self.dim), np.dtype(self.manifest.dtype))
        if (vectors_nd.shape, vectors_nd.dtype) != expected:
            raise CacheError(
                "a shard is of another shape or dtype than the manifest says",
                where=path,
                expected=expected,
                found=(vectors_nd.shape, vectors_nd.dtype),
            )
        return vectors_nd

    def array(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return all vectors as one (rows, dim) array in memory."""
        out_nd = np.empty((self.rows, self.dim), dtype=dtype)
        for index, start in enumerate(self._starts[:-1]):
            vectors_nd = self.shard(index)
            out_nd[start : start + len(vectors_nd)] = vectors_nd
        return out_nd

    def gather(self, positions: ArrayLike, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the vectors at ``positions`` as (len(positions), dim), in that order; each shard is mapped once.

        Raises:
            CacheError: a position is out of range.
        """
        rows = np.asarray(positions, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.rows):
            raise CacheError(
                "a row position is out of range",
                where=self.folder,
                expected=f"0 to {self.rows - 1}",
                found=f"{rows.min()} to {rows.max()}",
            )
        out_nd = np.empty((len(rows), self.dim), dtype=dtype)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == index)
            out_nd[chosen] = self.shard(int(index))[rows[chosen] - self._starts[index]]
        return out_nd

    def positions(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row positions of ``ids``.

        Raises:
            CacheError: an id is not in the cache.
        """
        try:
            return np.fromiter((self._position_of[identifier] for identifier in ids), np.int64, len(ids))
        except KeyError as error:
            raise CacheError(
                f"the cache holds no {self.role} with id {error.args[0]!r}",
                where=self.folder,
                fix=f"check the collection: `ragcun-cache collections check {self.collection}`",
            ) from None
