"""Writing a cache as one file, or one dataset folder, that other tools read without us."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragcun_cache.cache.convert import check_file
from ragcun_cache.cache.reader import EmbeddingCache
from ragcun_cache.errors import CacheError
from ragcun_cache.files import sync_file, sync_folder, sync_tree, write_json
from ragcun_cache.progress import progress

ExportFormat = Literal["npy", "parquet", "safetensors", "hf-dataset"]
EXPORT_SUFFIXES: dict[ExportFormat, str] = {
    "npy": ".npy",
    "parquet": ".parquet",
    "safetensors": ".safetensors",
    "hf-dataset": "",
}
_SAFETENSORS_DTYPES = {"float16": "F16", "float32": "F32"}
# What `datasets` writes into a folder: nothing else is ever replaced as one.
_DATASET_MARK = "dataset_info.json"


def export(cache: EmbeddingCache, to: ExportFormat, out: Path, *, force: bool = False) -> list[Path]:
    """Write all rows of ``cache`` to ``out``, a shard at a time, and return what was written.

    - ``npy``: (rows, dim) in the stored dtype; ids beside it in ``<name>.ids.json``.
    - ``parquet``: columns id, vector (fixed-size binary, row-major, dtype and dim in the schema's metadata), norm,
      n_tokens, truncated, text_sha256 (hexadecimal).
    - ``safetensors``: tensors ``vectors`` (rows, dim) and ``norms`` (rows,); ids beside it in ``<name>.ids.json``.
    - ``hf-dataset``: a folder for ``datasets.load_from_disk``, with the columns of ``parquet``, vectors as lists.

    Spec, fingerprints and checksums lie beside each as ``<name>.provenance.json``. Everything appears under its name
    only when it is whole.

    Raises:
        CacheError: something is at ``out`` and ``force`` is not set, or it has no name, a shard is damaged, the disk is
            full or failing, or the package ``datasets`` is absent.
    """
    if out.name in ("", ".."):
        raise CacheError("this is no name of a file", where=out, fix=f"give --out one inside it: {out / 'vectors'}")
    name = out.name.removesuffix(EXPORT_SUFFIXES[to])
    out = out.with_name(name + EXPORT_SUFFIXES[to])
    ids_path, provenance_path = out.with_name(f"{name}.ids.json"), out.with_name(f"{name}.provenance.json")
    beside = [ids_path, provenance_path] if to in ("npy", "safetensors") else [provenance_path]
    _refuse_to_overwrite(out, beside, folder=to == "hf-dataset", force=force)
    write = {
        "npy": _write_npy,
        "parquet": _write_parquet,
        "safetensors": _write_safetensors,
        "hf-dataset": _write_dataset,
    }
    try:
        with _partial(out) as partial:
            write[to](cache, partial)
        if ids_path in beside:
            _write_ids(cache, ids_path)
        write_json(provenance_path, provenance(cache))
    except (OSError, pa.ArrowException) as error:
        raise CacheError("the export could not be written", where=out, found=error) from error
    return [out, *beside]


def provenance(cache: EmbeddingCache) -> dict[str, Any]:
    """Return everything the manifest says of a cache but its list of files."""
    return cache.manifest.model_dump(mode="json", exclude={"shards", "format", "shard_rows"})


def _refuse_to_overwrite(out: Path, beside: list[Path], *, folder: bool, force: bool) -> None:
    there = [path for path in (out, *beside) if path.exists()]
    if there and not force:
        raise CacheError("something is there already", where=there[0], fix="name another file, or replace it: --force")
    if out.is_dir() and not (folder and ((out / _DATASET_MARK).exists() or not any(out.iterdir()))):
        raise CacheError(
            "a folder is there that is not an exported dataset; it is not removed",
            where=out,
            fix="give --out the name of a file or folder inside it",
        )


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """Give a name beside ``out`` to write to; what is there takes its place when it is whole, else it is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        yield partial
        (sync_file if partial.is_file() else sync_tree)(partial)
        if out.is_dir():
            shutil.rmtree(out)
        partial.replace(out)
        sync_folder(out.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _checked_shards(cache: EmbeddingCache) -> Iterator[tuple[pa.Table, NDArray[np.floating]]]:
    """Yield the rows and the vectors of one shard after the other, each checked against its sha256."""
    with progress(f"export {cache.collection} {cache.role}", "rows", cache.rows) as advance:
        for index, shard in enumerate(cache.manifest.shards):
            if isinstance(cache.address, Path):
                for file in shard.files:
                    check_file(cache.address, file)
            yield cache.rows_table(index), cache.shard(index)
            advance(shard.rows)


def _raw(vectors_nd: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(vectors_nd).reshape(-1).view(np.uint8)


def _write_ids(cache: EmbeddingCache, path: Path) -> None:
    with _partial(path) as partial, partial.open("w", encoding="utf-8") as handle:
        separator = "[\n"
        for index in range(len(cache.manifest.shards)):
            for identifier in cache.rows_table(index, ["id"]).column("id").to_pylist():
                handle.write(separator + json.dumps(identifier, ensure_ascii=False))
                separator = ",\n"
        handle.write("\n]\n" if separator != "[\n" else "[]\n")


def _write_npy(cache: EmbeddingCache, path: Path) -> None:
    shape = (cache.rows, cache.dim)
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": np.dtype(cache.manifest.dtype).str, "fortran_order": False, "shape": shape}
        )
        for _, vectors_nd in _checked_shards(cache):
            handle.write(_raw(vectors_nd).data)


def _write_safetensors(cache: EmbeddingCache, path: Path) -> None:
    """Write the format by hand, as its library wants all tensors in memory: header length, JSON header, raw bytes."""
    vectors_end = cache.rows * cache.dim * np.dtype(cache.manifest.dtype).itemsize
    norms_end = vectors_end + cache.rows * 4
    header: dict[str, Any] = {
        "__metadata__": {"fingerprint": cache.fingerprint, "content_sha256": cache.content_sha256},
        "vectors": {
            "dtype": _SAFETENSORS_DTYPES[cache.manifest.dtype],
            "shape": [cache.rows, cache.dim],
            "data_offsets": [0, vectors_end],
        },
        "norms": {"dtype": "F32", "shape": [cache.rows], "data_offsets": [vectors_end, norms_end]},
    }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, vectors_nd in _checked_shards(cache):
            handle.write(_raw(vectors_nd).data)
        handle.write(cache.norms.astype("<f4", copy=False).tobytes())


def _schema(cache: EmbeddingCache, vector_type: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("vector", vector_type),
            pa.field("norm", pa.float32()),
            pa.field("n_tokens", pa.int32()),
            pa.field("truncated", pa.bool_()),
            pa.field("text_sha256", pa.string()),
        ],
        metadata={"dtype": cache.manifest.dtype, "dim": str(cache.dim)},
    )


def _table(rows: pa.Table, vector: pa.Array, schema: pa.Schema) -> pa.Table:
    hashes = [digest.hex() for digest in rows.column("text_sha256").to_pylist()]
    return pa.table([rows["id"], vector, rows["norm"], rows["n_tokens"], rows["truncated"], hashes], schema=schema)


def _write_parquet(cache: EmbeddingCache, path: Path) -> None:
    vector_type = pa.binary(cache.dim * np.dtype(cache.manifest.dtype).itemsize)
    schema = _schema(cache, vector_type)
    compression = {name: "none" if name == "vector" else "zstd" for name in schema.names}
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as writer:
        for rows, vectors_nd in _checked_shards(cache):
            data = pa.py_buffer(_raw(vectors_nd))
            vector = pa.Array.from_buffers(vector_type, len(rows), [None, data])
            writer.write_table(_table(rows, vector, schema), row_group_size=len(rows))


def _write_dataset(cache: EmbeddingCache, path: Path) -> None:
    """Write the layout of ``Dataset.save_to_disk`` in one pass; it has no way to be given rows little by little."""
    datasets = hf_datasets()
    value_type = pa.from_numpy_dtype(np.dtype(cache.manifest.dtype))
    schema = _schema(cache, pa.list_(value_type, cache.dim))
    n_files = max(1, len(cache.manifest.shards))
    names = [f"data-{index:05d}-of-{n_files:05d}.arrow" for index in range(n_files)]
    path.mkdir()
    shards = _checked_shards(cache)
    for name in names:
        with pa.OSFile(str(path / name), "wb") as handle, pa.ipc.new_stream(handle, schema) as writer:
            if (shard := next(shards, None)) is not None:
                rows, vectors_nd = shard
                values = pa.Array.from_buffers(value_type, vectors_nd.size, [None, pa.py_buffer(_raw(vectors_nd))])
                vector = pa.FixedSizeListArray.from_arrays(values, cache.dim)
                writer.write_table(_table(rows, vector, schema))
    datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(schema)).write_to_directory(str(path))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": cache.fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(path / "state.json", state)


def hf_datasets() -> Any:
    """Import the package ``datasets``.

    Raises:
        CacheError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise CacheError(
            "Hugging Face datasets need the package `datasets`", fix="pip install 'ragcun-cache[hf]'"
        ) from None
    return datasets
