"""Reading a cache: ids, rows by position or id, shards, arrays, tensors. Never writes, never waits for a writer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ragcun_cache.cache.layout import MANIFEST_COPY_NAME, MANIFEST_NAME
from ragcun_cache.cache.manifest import FileRecord, Manifest, spec_differences
from ragcun_cache.cache.place import Place, place_of, repair_command
from ragcun_cache.cache.shard import ROWS_SCHEMA
from ragcun_cache.cache.vectors import read_vectors
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role

if TYPE_CHECKING:
    import polars
    import torch


def read_manifest(place: Place) -> Manifest:
    """Read and check the manifest of the cache at ``place``.

    Raises:
        CacheError: there is none, or it is damaged.
    """
    try:
        content = place.read(MANIFEST_NAME)
    except CacheError:
        names = place.sizes()
        if MANIFEST_NAME in names:
            raise
        if MANIFEST_COPY_NAME in names:
            fix = repair_command(place.address)
            raise CacheError("the manifest is missing, its copy is not", where=place.address, fix=fix) from None
        raise CacheError(
            "there is no cache here",
            where=place.address,
            expected=f"a {MANIFEST_NAME}",
            fix="name a folder as `ragcun-cache caches ls` prints it",
        ) from None
    return Manifest.parse(content, f"{place.address}/{MANIFEST_NAME}")


class EmbeddingCache:
    """The vectors of one collection's queries or passages, in collection order."""

    def __init__(
        self, folder: Path | str, *, spec: Mapping[str, Any] | None = None, allow_incomplete: bool = False
    ) -> None:
        """Open a cache after cheap checks: manifest checksum, completeness, and the size of every file.

        Args:
            folder: a folder, or the URL of one that fsspec reaches, such as ``s3://bucket/cache``.
            spec: what the vectors must be; None takes them as they are.
            allow_incomplete: whether a cache may be opened that is still being written.

        Raises:
            CacheError: it is missing, damaged, of another spec, or not finished.
        """
        self._place = place_of(folder)
        self.manifest = read_manifest(self._place)
        if spec is not None and (differences := spec_differences(self.manifest.spec, spec)):
            raise CacheError(
                "the cache is of another spec than asked for (found → asked)",
                where=folder,
                found="; ".join(differences),
                fix="ask for the spec that it has, or encode again with the one that you want",
            )
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

    @classmethod
    def unchecked(cls, place: Place, manifest: Manifest) -> EmbeddingCache:
        """Return the cache that ``manifest`` describes without looking at its files, for whoever checks them singly."""
        cache = cls.__new__(cls)
        cache._place, cache.manifest = place, manifest
        cache._starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)])
        return cache

    def _check_sizes(self) -> None:
        sizes = self._place.sizes()
        for record in self.manifest.shards:
            for file in record.files:
                # What is fetched is compared with its sha256, so a size that is not told is no loss.
                if sizes.get(file.name, 0) not in (file.bytes, None):
                    raise CacheError(
                        "a shard is damaged",
                        where=f"{self._place.address}/{file.name}",
                        expected=f"{file.bytes} bytes",
                        found=f"{sizes[file.name]} bytes" if file.name in sizes else "no file",
                        fix=repair_command(self._place.address),
                    )

    @property
    def address(self) -> Path | str:
        """Where the cache lies: a folder or a URL."""
        return self._place.address

    @property
    def folder(self) -> Path:
        """The folder of a cache on this machine. Raises CacheError for a remote one."""
        if not isinstance(self.address, Path):
            raise CacheError("a remote cache has no folder on this machine", where=self.address)
        return self.address

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

    def _source(self, file: FileRecord) -> Path | bytes:
        local = self._place.local(file.name)
        if local is not None:
            return local
        content = self._place.read(file.name)
        # All of it is in memory, so the check that a local file gets from `verify` costs next to nothing here.
        if (found := sha256(content).hexdigest()) != file.sha256:
            raise CacheError(
                "a shard is damaged", where=f"{self.address}/{file.name}", expected=f"sha256 {file.sha256}", found=found
            )
        return content

    def rows_table(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return id, text_sha256, n_tokens, truncated and norm of one shard's rows, or some of these columns.

        Raises:
            CacheError: the file is damaged.
        """
        record = self.manifest.shards[index]
        where = f"{self.address}/{record.metadata.name}"
        source = self._source(record.metadata)
        schema = ROWS_SCHEMA if columns is None else pa.schema([ROWS_SCHEMA.field(name) for name in columns])
        try:
            opened = source if isinstance(source, Path) else io.BytesIO(source)
            table = pq.read_table(opened, columns=schema.names)
            table.validate(full=True)  # a flipped bit in an id is no UTF-8 any more
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CacheError("the rows of a shard cannot be read", where=where, found=error) from None
        if len(table) != record.rows or not table.schema.equals(schema):
            raise CacheError(
                "a shard has other rows or columns than the manifest says",
                where=where,
                expected=f"{record.rows} rows of {', '.join(schema.names)}",
                found=f"{len(table)} rows of {', '.join(table.schema.names)}",
            )
        return table

    def _column(self, name: str) -> list[pa.ChunkedArray]:
        return [self.rows_table(index, [name]).column(name) for index in range(len(self.manifest.shards))]

    @cached_property
    def ids(self) -> list[str]:
        """Identifiers in row order."""
        return [identifier for column in self._column("id") for identifier in column.to_pylist()]

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """(rows,) float32: norms of the pooled vectors before normalisation."""
        columns = [column.to_numpy() for column in self._column("norm")]
        return np.concatenate([np.empty(0, np.float32), *columns]).astype(np.float32, copy=False)

    def metadata(self) -> polars.DataFrame:
        """Return a polars frame of every row: id, text_sha256, n_tokens, truncated, norm, in row order."""
        import polars

        tables = [self.rows_table(index) for index in range(len(self.manifest.shards))]
        frame = polars.from_arrow(pa.concat_tables([ROWS_SCHEMA.empty_table(), *tables]))
        assert isinstance(frame, polars.DataFrame)
        return frame

    @cached_property
    def _position_of(self) -> dict[str, int]:
        return {identifier: position for position, identifier in enumerate(self.ids)}

    def shard(self, index: int) -> NDArray[np.floating]:
        """Return the (rows, dim) vectors of one shard in the stored dtype, read-only.

        In the memmap format on this machine nothing is read or copied before it is used.

        Raises:
            CacheError: the file disagrees with the manifest.
        """
        record = self.manifest.shards[index]
        where = f"{self.address}/{record.vectors.name}"
        source = self._source(record.vectors)
        try:
            vectors_nd = read_vectors(source, record.vectors.name, self.manifest.dtype, self.dim)
        except CacheError as error:
            raise CacheError("a shard is damaged", where=where, found=error.found or error.problem) from None
        expected = ((record.rows, self.dim), np.dtype(self.manifest.dtype))
        if (vectors_nd.shape, vectors_nd.dtype) != expected:
            raise CacheError(
                "a shard is of another shape or dtype than the manifest says",
                where=where,
                expected=expected,
                found=(vectors_nd.shape, vectors_nd.dtype),
            )
        return vectors_nd

    def shards(self) -> Iterator[tuple[list[str], NDArray[np.floating]]]:
        """Yield (ids, vectors) of one shard after the other, so memory stays that of one shard."""
        for index in range(len(self.manifest.shards)):
            yield self.rows_table(index, ["id"]).column("id").to_pylist(), self.shard(index)

    def blocks(self, block_rows: int, dtype: DTypeLike = np.float32) -> Iterator[NDArray[Any]]:
        """Yield all vectors in blocks of ``block_rows`` (the last may be shorter), wherever the shards' borders are.

        Each is a new array in memory; that of a block and of one shard is all that is needed.
        """
        out_bd = np.empty((min(block_rows, self.rows), self.dim), dtype=dtype)
        filled = 0
        for index in range(len(self.manifest.shards)):
            shard_nd = self.shard(index)
            taken = 0
            while taken < len(shard_nd):
                rows = min(len(shard_nd) - taken, len(out_bd) - filled)
                out_bd[filled : filled + rows] = shard_nd[taken : taken + rows]
                taken, filled = taken + rows, filled + rows
                if filled == len(out_bd):
                    yield out_bd
                    out_bd, filled = np.empty_like(out_bd), 0
        if filled:
            yield out_bd[:filled]

    def array(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return all vectors as one (rows, dim) array in memory."""
        out_nd = np.empty((self.rows, self.dim), dtype=dtype)
        for index, start in enumerate(self._starts[:-1]):
            vectors_nd = self.shard(index)
            out_nd[start : start + len(vectors_nd)] = vectors_nd
        return out_nd

    def tensor(self, device: str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return all vectors as one (rows, dim) torch tensor on ``device``, shard by shard.

        Args:
            device: of the tensor.
            dtype: of the tensor; None keeps that of the cache.
        """
        import warnings

        import torch

        stored = getattr(torch, self.manifest.dtype)
        out_nd = torch.empty((self.rows, self.dim), dtype=dtype or stored, device=device)
        for index, start in enumerate(self._starts[:-1]):
            with warnings.catch_warnings():
                # The mapped file is read-only, as torch warns; it is only copied from.
                warnings.simplefilter("ignore", UserWarning)
                shard_nd = torch.from_numpy(self.shard(index))
            out_nd[start : start + len(shard_nd)].copy_(shard_nd)
        return out_nd

    def gather(self, positions: ArrayLike, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the vectors at ``positions`` as (len(positions), dim), in that order; each shard is opened once.

        Raises:
            CacheError: a position is out of range.
        """
        rows = np.asarray(positions, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.rows):
            raise CacheError(
                "a row position is out of range",
                where=self.address,
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
                where=self.address,
                fix=f"check the collection: `ragcun-cache collections check {self.collection}`",
            ) from None
