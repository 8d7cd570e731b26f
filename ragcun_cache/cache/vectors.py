"""The two formats of a shard's vectors: ``.npy``, and Parquet that other tools read without us."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragcun_cache.cache.layout import VectorFormat
from ragcun_cache.errors import CacheError

# One fixed-size binary a row reads several times faster than a list of floats (see docs/benchmarks.md).
_VECTOR_COLUMN = "vector"


def npy_parts(vectors_nd: NDArray[np.floating]) -> list[memoryview]:
    """Return the bytes of a ``.npy`` file as header and data, the data not copied."""
    header = io.BytesIO()
    contiguous = np.ascontiguousarray(vectors_nd)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(contiguous))
    return [header.getbuffer(), contiguous.reshape(-1).view(np.uint8).data]


def parquet_parts(ids: list[str], vectors_nd: NDArray[np.floating]) -> list[memoryview]:
    """Return the bytes of a Parquet file with the columns ``id`` and ``vector`` (fixed-size binary, row-major)."""
    rows, dim = vectors_nd.shape
    width = dim * vectors_nd.itemsize
    data = pa.py_buffer(np.ascontiguousarray(vectors_nd).reshape(-1).view(np.uint8))
    column = pa.Array.from_buffers(pa.binary(width), rows, [None, data])
    about = {"dtype": vectors_nd.dtype.name, "dim": str(dim)}
    schema = pa.schema([pa.field("id", pa.string()), pa.field(_VECTOR_COLUMN, pa.binary(width))], metadata=about)
    buffer = io.BytesIO()
    table = pa.table([pa.array(ids, pa.string()), column], schema=schema)
    # Vectors do not compress, and one row group is one contiguous block to read.
    pq.write_table(
        table, buffer, compression="none", use_dictionary=False, write_statistics=False, row_group_size=2**24
    )
    return [buffer.getbuffer()]


def vector_parts(ids: list[str], vectors_nd: NDArray[np.floating], vector_format: VectorFormat) -> list[memoryview]:
    """Return the bytes of a shard's vector file in the format asked for."""
    return npy_parts(vectors_nd) if vector_format == "memmap" else parquet_parts(ids, vectors_nd)


def read_vectors(source: Path | bytes, name: str, dtype: str, dim: int) -> NDArray[np.floating]:
    """Return the (rows, dim) vectors of a file, read-only.

    A ``.npy`` file of this machine is memory-mapped, not read.

    Args:
        source: the file, or its bytes.
        name: its name, which says its format.
        dtype: of the vectors, for a Parquet file.
        dim: of the vectors, for a Parquet file.

    Raises:
        CacheError: the file is not what its name says.
    """
    try:
        if name.endswith(".npy"):
            if isinstance(source, Path):
                mapped: NDArray[np.floating] = np.load(source, mmap_mode="r", allow_pickle=False)
                return mapped
            loaded: NDArray[np.floating] = np.load(io.BytesIO(source), allow_pickle=False)
            return loaded
        file = pa.memory_map(str(source)) if isinstance(source, Path) else pa.BufferReader(source)
        with file:
            column = pq.read_table(file, columns=[_VECTOR_COLUMN]).column(_VECTOR_COLUMN)
        blocks = [
            np.frombuffer(chunk.buffers()[1], dtype=dtype)[chunk.offset * dim : (chunk.offset + len(chunk)) * dim]
            for chunk in column.chunks
            if len(chunk)
        ]
        flat = blocks[0] if len(blocks) == 1 else np.concatenate([np.empty(0, dtype), *blocks])
        return flat.reshape(-1, dim)
    except Exception as error:  # the parser of a damaged header may raise anything, a SyntaxError among them
        raise CacheError("a vector file cannot be read", where=name, found=error) from None
