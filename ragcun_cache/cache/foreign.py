"""Vectors that other tools wrote: ids and a (rows, dim) array out of .npy, Parquet or a Hugging Face dataset folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragcun_cache.cache.export import hf_datasets
from ragcun_cache.errors import CacheError
from ragcun_cache.files import sha256_file, sha256_json

_BATCH_ROWS = 8192
_NORMS = "norm"
_DTYPES = ("float16", "float32", "float64")

FloatDtype = Literal["float16", "float32", "float64"]


@dataclass(frozen=True)
class ForeignVectors:
    """Rows in the order of their file.

    Attributes:
        ids: identifier of every row.
        vectors_nd: (rows, dim), of any floating-point dtype; mapped from a file, so that only rows in use cost memory.
        sha256: of all files that they were read from.
        norms: (rows,), of any floating-point dtype, from before the vectors were normalised; None where no file says.
    """

    ids: list[str]
    vectors_nd: NDArray[np.floating]
    sha256: str
    norms: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Columns:
    """Where ids and vectors stand in a table; ``dtype`` of vectors that are bytes and do not say it themselves."""

    ids: str = "id"
    vectors: str = "vector"
    dtype: FloatDtype | None = None


def read_foreign(vectors: Path, ids: Path | None, columns: Columns, staging: Path) -> ForeignVectors:
    """Open vectors that another tool wrote.

    Tables have no random access, so their vectors are copied once to an unnamed file in ``staging``, which is gone when
    the array is.

    Args:
        vectors: a .npy file; a Parquet file, or a folder of them; or a folder of ``Dataset.save_to_disk``.
        ids: for .npy, its ids: a JSON list, or text with one a line.
        columns: of a table.
        staging: an existing folder on a disk with room for a copy.

    Raises:
        CacheError: a file is missing, cannot be read, or is not of the shape that it should be.
    """
    if not vectors.exists():
        raise CacheError("there are no vectors here", where=vectors)
    if vectors.suffix == ".npy":
        if ids is None:
            raise CacheError("a .npy file has no ids", where=vectors, fix="give them with --ids FILE (.json or .txt)")
        return _checked(ForeignVectors(_read_ids(ids), _read_npy(vectors), _sha256([vectors, ids])), vectors)
    if ids is not None:
        raise CacheError("a table has ids of its own", where=vectors, fix="leave out --ids, or name their column")
    tables, files = _tables(vectors, columns)
    try:
        return _staged(tables, columns, _sha256(files), vectors, staging)
    except (pa.ArrowException, OSError) as error:
        raise CacheError("the table cannot be read", where=vectors, found=error) from None


def _tables(vectors: Path, columns: Columns) -> tuple[Iterator[pa.Table], list[Path]]:
    """Return the rows of a dataset or of Parquet files, a batch at a time, and the files that they are in."""
    if (vectors / "state.json").exists():
        return _dataset_tables(vectors, columns), sorted(vectors.glob("*.arrow"))
    if (vectors / "dataset_dict.json").exists():
        splits = ", ".join(sorted(path.parent.name for path in vectors.glob("*/state.json")))
        raise CacheError("a dataset of several splits", where=vectors, expected=f"one of its folders: {splits}")
    files = sorted(vectors.rglob("*.parquet")) if vectors.is_dir() else [vectors]
    if not files or files[0].suffix != ".parquet":
        raise CacheError(
            "this kind of file cannot be imported",
            where=vectors,
            expected=".npy, .parquet, a folder of .parquet files, or a folder of Dataset.save_to_disk",
        )
    return _parquet_tables(files, columns), files


def _sha256(files: list[Path]) -> str:
    return sha256_json([sha256_file(file) for file in files])


def _checked(found: ForeignVectors, where: Path) -> ForeignVectors:
    if len(found.ids) != len(found.vectors_nd):
        raise CacheError(
            "ids and vectors differ in number",
            where=where,
            expected=f"{len(found.vectors_nd):,} ids",
            found=f"{len(found.ids):,}",
        )
    return found


def _read_npy(path: Path) -> NDArray[np.floating]:
    try:
        vectors_nd: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CacheError("the .npy file cannot be read", where=path, found=error) from None
    if vectors_nd.ndim != 2 or vectors_nd.dtype.name not in _DTYPES or not vectors_nd.size:
        raise CacheError(
            "the .npy file does not hold vectors",
            where=path,
            expected=f"(rows, dim) of {', '.join(_DTYPES)}",
            found=f"{vectors_nd.shape} of {vectors_nd.dtype}",
        )
    return vectors_nd


def _read_ids(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            # Not splitlines: it also splits at characters that ids may have.
            return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise CacheError("the ids cannot be read", where=path, found=error) from None
    if not isinstance(content, list) or not all(type(one) in (str, int) for one in content):
        raise CacheError("the ids cannot be read", where=path, expected="a JSON list of strings or whole numbers")
    return [str(one) for one in content]


def _present(columns: Columns, schema: pa.Schema, where: Path) -> list[str]:
    """Return the columns to read: ids, vectors, and the norms where there are any."""
    there = schema.names
    for name, flag in ((columns.ids, "--id-column"), (columns.vectors, "--vector-column")):
        if name not in there:
            raise CacheError(
                f"there is no column {name!r}",
                where=where,
                found=f"columns {', '.join(there)}",
                fix=f"name the column with {flag}",
            )
    has_norms = _NORMS in there and pa.types.is_floating(schema.field(_NORMS).type)
    return [columns.ids, columns.vectors, *([_NORMS] if has_norms else [])]


def _dataset_tables(folder: Path, columns: Columns) -> Iterator[pa.Table]:
    datasets = hf_datasets()
    try:
        dataset = datasets.load_from_disk(str(folder))
    except (ValueError, KeyError) as error:
        raise CacheError("the dataset cannot be read", where=folder, found=error) from None
    names = _present(columns, dataset.features.arrow_schema, folder)
    yield from dataset.select_columns(names).with_format("arrow").iter(_BATCH_ROWS)


def _parquet_tables(files: list[Path], columns: Columns) -> Iterator[pa.Table]:
    for path in files:
        with pq.ParquetFile(path) as file:
            names = _present(columns, file.schema_arrow, path)
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield pa.Table.from_batches([batch])


def _staged(tables: Iterator[pa.Table], columns: Columns, sha256: str, where: Path, staging: Path) -> ForeignVectors:
    """Copy the vectors of ``tables`` to an unnamed file, so that any row of them can be had."""
    ids: list[str] = []
    norms: list[NDArray[np.floating]] = []
    dim: int | None = None
    with tempfile.TemporaryFile(dir=staging) as handle:
        for table in tables:
            start = len(ids)
            ids += _id_strings(table.column(columns.ids), where, start)
            block_nd = _vector_block(table.column(columns.vectors), table.schema.metadata, columns.dtype, where, start)
            if dim is None:
                dim, dtype = block_nd.shape[1], np.float16 if block_nd.dtype == np.float16 else np.float32
            if block_nd.shape[1] != dim:
                raise _ragged(where, start, dim, block_nd.shape[1])
            if _NORMS in table.column_names:
                norms.append(table.column(_NORMS).to_numpy())
            with np.errstate(over="ignore"):  # What float32 cannot hold becomes inf, which is found with its row later.
                _stage(np.ascontiguousarray(block_nd, dtype), handle)
        if not dim:
            raise CacheError("there are no vectors here", where=where, found=f"{len(ids):,} rows")
        handle.flush()
        vectors_nd = np.memmap(handle, dtype, "r", shape=(len(ids), dim))
    if norms and sum(map(len, norms)) != len(ids):
        raise CacheError(f"some of the files have a column {_NORMS!r}, others have none", where=where)
    return ForeignVectors(ids, vectors_nd, sha256, np.concatenate(norms) if norms else None)


def _stage(block_nd: NDArray[np.floating], handle: IO[bytes]) -> None:
    try:
        handle.write(block_nd.reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise CacheError("there is no room for a copy of the vectors", found=error, fix="make room") from error


def _id_strings(column: pa.ChunkedArray, where: Path, start: int) -> list[str]:
    if not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_integer(column.type)
    ):
        raise CacheError("the ids are not strings or whole numbers", where=where, found=column.type)
    ids = column.to_pylist()
    if column.null_count:
        raise CacheError("an id is missing", where=f"{where}, row {start + ids.index(None)}")
    return [str(one) for one in ids]


def _vector_block(
    column: pa.ChunkedArray,
    metadata: dict[bytes, bytes] | None,
    dtype: FloatDtype | None,
    where: Path,
    start: int,
) -> NDArray[np.floating]:
    """Return the (rows, dim) vectors of a column of lists or of bytes."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # What older versions return.
        array = pa.concat_arrays(array.chunks)
    if array.null_count:
        row = start + array.is_null().to_pylist().index(True)
        raise CacheError("a vector is missing", where=f"{where}, row {row}")
    kind = array.type
    if pa.types.is_fixed_size_binary(kind):
        found = dtype or (metadata or {}).get(b"dtype", b"").decode()
        if found not in _DTYPES:
            raise CacheError("the vectors are bytes of unknown dtype", where=where, fix="name it with --vector-dtype")
        raw = array.buffers()[1][array.offset * kind.byte_width : (array.offset + len(array)) * kind.byte_width]
        if kind.byte_width % np.dtype(found).itemsize:
            raise CacheError("the vectors are of another dtype", where=where, found=f"{kind} as {found}")
        return np.frombuffer(raw, found).reshape(len(array), -1)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise CacheError("the vectors are not lists or fixed-size bytes", where=where, found=kind)
    if not pa.types.is_floating(kind.value_type):
        raise CacheError("the vectors are not of floating-point numbers", where=where, found=kind)
    if pa.types.is_fixed_size_list(kind):
        dim = kind.list_size
    else:
        lengths = array.value_lengths().to_numpy()
        dim = int(lengths[0])
        if (lengths != dim).any():
            row = int(np.flatnonzero(lengths != dim)[0])
            raise _ragged(where, start + row, dim, int(lengths[row]))
    values = array.flatten().to_numpy(zero_copy_only=False)
    block_nd: NDArray[np.floating] = values.reshape(len(array), dim)
    return block_nd


def _ragged(where: Path, row: int, expected: int, found: int) -> CacheError:
    return CacheError("a vector is of another length", where=f"{where}, row {row}", expected=expected, found=found)
