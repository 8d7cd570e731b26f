"""One shard: a block of rows, as arrays in memory and as two files on disk."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragcun_cache.cache.layout import CacheLayout, VectorFormat
from ragcun_cache.cache.manifest import FileRecord, ShardRecord
from ragcun_cache.cache.vectors import vector_parts
from ragcun_cache.errors import CacheError
from ragcun_cache.files import atomic_file

ROWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text_sha256", pa.binary(32), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("norm", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a collection.

    Attributes:
        ids: identifiers, in collection order.
        vectors_nd: (rows, dim) float16 or float32, unit norm when the encoder normalises.
        text_sha256: of the exact string that was encoded, 32 bytes each.
        n_tokens: (rows,) int32, special tokens included, after truncation.
        truncated: (rows,) bool.
        norms: (rows,) float32, of the pooled vector before it was normalised.
    """

    ids: list[str]
    vectors_nd: NDArray[np.floating]
    text_sha256: list[bytes]
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    norms: NDArray[np.float32]

    def __post_init__(self) -> None:
        lengths = {
            "ids": len(self.ids),
            "vectors": len(self.vectors_nd),
            "text_sha256": len(self.text_sha256),
            "n_tokens": len(self.n_tokens),
            "truncated": len(self.truncated),
            "norms": len(self.norms),
        }
        if len(set(lengths.values())) != 1:
            raise CacheError("the columns of a shard differ in length", found=lengths)
        finite = np.isfinite(self.vectors_nd).all(axis=1) if len(self.vectors_nd) else np.ones(0, dtype=bool)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise CacheError(
                "a vector is not finite", where=f"row {self.ids[row]!r}", expected="finite values", found="NaN or inf"
            )

    def files(
        self, layout: CacheLayout, index: int, vector_format: VectorFormat
    ) -> tuple[tuple[Path, list[memoryview]], tuple[Path, list[memoryview]]]:
        """Return path and bytes of the vector file and of the rows file, without writing them."""
        columns = [self.ids, self.text_sha256, self.n_tokens, self.truncated, self.norms]
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns, schema=ROWS_SCHEMA), buffer, compression="zstd")
        vectors = (layout.vectors(index, vector_format), vector_parts(self.ids, self.vectors_nd, vector_format))
        return vectors, (layout.rows(index), [buffer.getbuffer()])

    def write(self, layout: CacheLayout, index: int, vector_format: VectorFormat) -> ShardRecord:
        """Write both files atomically and return their record, which the manifest must name for them to count."""
        vectors, metadata = self.files(layout, index, vector_format)
        for path, parts in (vectors, metadata):
            write_parts(path, parts)
        return ShardRecord(
            rows=len(self.ids),
            vectors=file_record(*vectors),
            metadata=file_record(*metadata),
            tokens=int(self.n_tokens.sum()),
            truncated=int(self.truncated.sum()),
            norm_min=float(self.norms.min()) if len(self.norms) else 0.0,
            norm_max=float(self.norms.max(initial=0.0)),
        )


def file_record(path: Path, parts: list[memoryview]) -> FileRecord:
    """Return name, size and sha256 of the file that ``parts`` make."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return FileRecord(name=path.name, bytes=sum(part.nbytes for part in parts), sha256=digest.hexdigest())


def write_parts(path: Path, parts: list[memoryview]) -> None:
    """Write ``parts`` one after the other, atomically."""
    with atomic_file(path) as handle:
        for part in parts:
            handle.write(part)
