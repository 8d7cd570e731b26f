"""Changing the format of a cache's vector files in place, without losing a bit or, at any moment, the cache."""

from __future__ import annotations

from pathlib import Path

from ragcun_cache.cache.layout import VECTOR_SUFFIXES, CacheLayout, VectorFormat
from ragcun_cache.cache.manifest import FileRecord
from ragcun_cache.cache.pair import dated
from ragcun_cache.cache.part import refuse_part
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import EmbeddingCache, read_manifest
from ragcun_cache.cache.shard import file_record, write_parts
from ragcun_cache.cache.vectors import vector_parts
from ragcun_cache.cache.writer import bring_copy_along, sweep, writer_lock
from ragcun_cache.errors import CacheError
from ragcun_cache.files import sha256_file
from ragcun_cache.progress import progress


def convert(folder: Path, vector_format: VectorFormat) -> int:
    """Turn every vector file of a cache into ``vector_format`` and return how many were turned.

    A shard at a time: its new file is made durable, then named in the manifest, then the old file goes. A cache that a
    crash leaves with shards of both formats opens as it is, and converting again goes on. Readers that were open before
    have to open it again. An unfinished cache is converted too, and goes on being written in the new format.

    Args:
        folder: the cache.
        vector_format: of the files afterwards.

    Raises:
        CacheError: there is no cache, a file is damaged, another process writes here, or the disk is full or failing.
    """
    layout = CacheLayout(folder)
    # Before the lock, which would make the folder.
    refuse_part(read_manifest(LocalPlace(folder)), folder)
    turned = 0
    with writer_lock(layout):
        cache = EmbeddingCache(folder, allow_incomplete=True)
        manifest = dated(layout, cache.manifest)
        suffix = f".{VECTOR_SUFFIXES[vector_format]}"
        pending = [index for index, shard in enumerate(manifest.shards) if not shard.vectors.name.endswith(suffix)]
        try:
            bring_copy_along(layout, cache.manifest)
            sweep(layout, manifest)
            # Before the first shard, so that a cache of no shards is converted too.
            if manifest.format != vector_format:
                manifest = manifest.model_copy(update={"format": vector_format})
                manifest.write(layout)
            with progress(f"convert {folder.name} to {vector_format}", "shards", len(pending)) as advance:
                for index in pending:
                    old = manifest.shards[index]
                    for file in old.files:
                        check_file(folder, file)
                    ids = cache.rows_table(index, ["id"]).column("id").to_pylist()
                    path = layout.vectors(index, vector_format)
                    parts = vector_parts(ids, cache.shard(index), vector_format)
                    write_parts(path, parts)
                    shard = old.model_copy(update={"vectors": file_record(path, parts)})
                    manifest = manifest.with_shard(index, shard)
                    manifest.write(layout)
                    (folder / old.vectors.name).unlink()
                    turned += 1
                    advance(1)
        except OSError as error:
            raise CacheError(
                "a vector file could not be converted; the cache is whole, partly in the old format",
                where=folder,
                found=error,
                fix="make room or mend the folder, then run the same command again: it goes on from here",
            ) from error
    return turned


def check_file(folder: Path, file: FileRecord) -> None:
    """Read a file of a cache and compare it with its record, so that damage is never copied under a new checksum.

    Raises:
        CacheError: it is not what was written.
    """
    if sha256_file(folder / file.name) != file.sha256:
        raise CacheError(
            "a shard is damaged",
            where=folder / file.name,
            expected=f"sha256 {file.sha256}",
            fix=f"ragcun-cache caches verify --repair {folder}",
        )
