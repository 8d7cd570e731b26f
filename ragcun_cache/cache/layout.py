"""Names of the files of one cache. Every path of a cache is built here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragcun_cache.role import Role

FINGERPRINT_DIGITS = 16
_CONTENT_DIGITS = 8

MANIFEST_NAME = "manifest.json"
MANIFEST_COPY_NAME = "manifest.copy.json"
PARTS = "parts"
_VECTORS, _ROWS = "vectors-", "rows-"
SHARD_PREFIXES = (_VECTORS, _ROWS)
"""How the names of the files of shards begin."""

VectorFormat = Literal["memmap", "parquet"]
VECTOR_SUFFIXES: dict[VectorFormat, str] = {"memmap": "npy", "parquet": "parquet"}


def collection_folder(collection: str) -> str:
    """Return the name of the folder of a collection's caches."""
    return collection.replace("/", "__")


def cache_folder(role: Role, fingerprint: str, content_sha256: str) -> str:
    """Return the name of the folder of one cache: ``<role>-<fingerprint>-<content>``, shortened."""
    return f"{role}-{fingerprint[:FINGERPRINT_DIGITS]}-{content_sha256[:_CONTENT_DIGITS]}"


@dataclass(frozen=True)
class CacheLayout:
    """The folder of one cache: one collection file, one role, one encoder spec."""

    folder: Path

    @classmethod
    def of(cls, caches: Path, collection: str, role: Role, fingerprint: str, content_sha256: str) -> CacheLayout:
        """Return ``caches/<collection>/<role>-<fingerprint>-<content>``.

        The content hash is part of the name, so a changed collection gets a cache of its own and the vectors of the
        old one stay as they are until somebody removes them.
        """
        return cls(caches / collection_folder(collection) / cache_folder(role, fingerprint, content_sha256))

    def part(self, number: int, of: int) -> CacheLayout:
        """Return the folder of one part of this cache: ``parts/<name>.part-<number>-of-<of>`` beside it.

        One level deeper than caches lie, so nothing that lists caches finds it.
        """
        return CacheLayout(self.folder.parent / PARTS / f"{self.folder.name}.part-{number}-of-{of}")

    @property
    def manifest(self) -> Path:
        """The list of what is in the cache; a shard that it does not name does not exist."""
        return self.folder / MANIFEST_NAME

    @property
    def manifest_copy(self) -> Path:
        """A second copy of the manifest, written after it: what a damaged manifest is repaired from."""
        return self.folder / MANIFEST_COPY_NAME

    @property
    def lock(self) -> Path:
        """Held by the one process that writes."""
        return self.folder / ".lock"

    @property
    def used(self) -> Path:
        """An empty file whose time says when the cache was last used."""
        return self.folder / ".used"

    def vectors(self, shard: int, vector_format: VectorFormat) -> Path:
        """Vectors of one shard: (rows, dim), as ``.npy`` that can be memory-mapped, or as Parquet with their ids."""
        return self.folder / f"{_VECTORS}{shard:05d}.{VECTOR_SUFFIXES[vector_format]}"

    def rows(self, shard: int) -> Path:
        """Ids and facts of the same rows, in the same order."""
        return self.folder / f"{_ROWS}{shard:05d}.parquet"
