"""Names of the files of one cache. Every path of a cache is built here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragcun_cache.role import Role

FINGERPRINT_DIGITS = 16
CONTENT_DIGITS = 8

VectorFormat = Literal["memmap", "parquet"]
VECTOR_SUFFIXES: dict[VectorFormat, str] = {"memmap": "npy", "parquet": "parquet"}


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
        name = f"{role}-{fingerprint[:FINGERPRINT_DIGITS]}-{content_sha256[:CONTENT_DIGITS]}"
        return cls(caches / collection.replace("/", "__") / name)

    def part(self, number: int, of: int) -> CacheLayout:
        """Return the folder of one part of this cache: ``parts/<name>.part-<number>-of-<of>`` beside it.

        One level deeper than caches lie, so nothing that lists caches finds it.
        """
        return CacheLayout(self.folder.parent / "parts" / f"{self.folder.name}.part-{number}-of-{of}")

    @property
    def manifest(self) -> Path:
        """The list of what is in the cache; a shard that it does not name does not exist."""
        return self.folder / "manifest.json"

    @property
    def manifest_copy(self) -> Path:
        """A second copy of the manifest, written after it: what a damaged manifest is repaired from."""
        return self.folder / "manifest.copy.json"

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
        return self.folder / f"vectors-{shard:05d}.{VECTOR_SUFFIXES[vector_format]}"

    def rows(self, shard: int) -> Path:
        """Ids and facts of the same rows, in the same order."""
        return self.folder / f"rows-{shard:05d}.parquet"
