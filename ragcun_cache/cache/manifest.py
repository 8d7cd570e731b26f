"""The manifest: what a cache holds, of which spec and collection, with a checksum for every byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragcun_cache.cache.layout import FINGERPRINT_DIGITS, CacheLayout, VectorFormat
from ragcun_cache.cache.place import is_remote
from ragcun_cache.errors import CacheError
from ragcun_cache.files import atomic_file, sha256_json
from ragcun_cache.role import Role

SCHEMA_VERSION = 1

# A query and a passage cache belong to the same encoder when their specs agree in all but these.
ROLE_FIELDS = frozenset({"role", "prompt"})


def spec_fingerprint(spec: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the sha256 of the canonical JSON of ``spec``."""
    return sha256_json(dict(spec))[:FINGERPRINT_DIGITS]


def encoder_fingerprint(spec: Mapping[str, Any]) -> str:
    """Return the fingerprint of ``spec`` without what may differ between queries and passages."""
    return spec_fingerprint({key: value for key, value in spec.items() if key not in ROLE_FIELDS})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """Name, size in bytes and sha256 of one file of the cache's folder, as they were when it was written."""

    name: str = Field(pattern=r"^[a-z]+-[0-9]{5,}\.(npy|parquet)$")
    bytes: int
    sha256: str


class ShardRecord(_Frozen):
    """One shard: both of its files, and sums over its rows."""

    rows: int
    vectors: FileRecord
    metadata: FileRecord
    tokens: int
    truncated: int
    norm_min: float
    norm_max: float

    @property
    def files(self) -> tuple[FileRecord, FileRecord]:
        """Its vectors and its metadata."""
        return self.vectors, self.metadata


class Manifest(_Frozen):
    """Everything that is known about a cache. ``complete`` is set last."""

    schema_version: int = SCHEMA_VERSION
    collection: str
    role: Role
    content_sha256: str
    spec: dict[str, Any]
    fingerprint: str
    encoder: str
    dim: int
    dtype: str
    format: VectorFormat = "memmap"
    shard_rows: int
    total_rows: int
    shards: tuple[ShardRecord, ...] = ()
    complete: bool = False
    provenance: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether all of it is there and was compared with the collection at the end: a whole cache, or a part."""
        return self.complete or bool(self.provenance.get("finished"))

    @property
    def rows(self) -> int:
        """Rows that are safely on disk."""
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Tokens that went through the encoder, special tokens included, padding not."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def truncated(self) -> int:
        """Rows whose text was longer than the encoder reads."""
        return sum(shard.truncated for shard in self.shards)

    @property
    def vector_bytes(self) -> int:
        """Bytes of all vector files."""
        return sum(shard.vectors.bytes for shard in self.shards)

    def with_shard(self, index: int, shard: ShardRecord) -> Manifest:
        """Return the manifest with another shard in the place of the one with the number ``index``."""
        return self.model_copy(update={"shards": (*self.shards[:index], shard, *self.shards[index + 1 :])})

    def to_bytes(self) -> bytes:
        """Return the exact bytes of ``manifest.json``, which end in a checksum of all the rest."""
        content = self.model_dump(mode="json")
        content["manifest_sha256"] = sha256_json(content)
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, layout: CacheLayout) -> None:
        """Replace the manifest atomically, then its copy."""
        content = self.to_bytes()
        for path in (layout.manifest, layout.manifest_copy):
            with atomic_file(path) as handle:
                handle.write(content)

    @classmethod
    def parse(cls, found_bytes: bytes, where: Path | str) -> Manifest:
        """Parse and check the bytes of a ``manifest.json``; ``where`` they were read is only for messages.

        Raises:
            CacheError: they are not JSON, are of another schema version, or fail their checksum.
        """
        rebuild = None if is_remote(where) else "`ragcun-cache caches verify --repair` restores it from its copy"
        try:
            content = json.loads(found_bytes)
            checksum = content.pop("manifest_sha256")
            version = content["schema_version"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CacheError(
                "the manifest is damaged", where=where, expected="JSON with a manifest_sha256", fix=rebuild
            ) from None
        if version != SCHEMA_VERSION:
            raise CacheError(
                "the cache was written by another version of ragcun-cache",
                where=where,
                expected=f"schema version {SCHEMA_VERSION}",
                found=version,
                fix="use the version that wrote it, or encode again",
            )
        try:
            manifest = cls.model_validate(content)
        except ValidationError as error:
            raise CacheError("the manifest is damaged", where=where, found=error, fix=rebuild) from None
        if checksum != sha256_json(content) or manifest.to_bytes() != found_bytes:
            raise CacheError(
                "the manifest fails its own checksum",
                where=where,
                expected=checksum,
                found=sha256_json(content),
                fix=rebuild,
            )
        return manifest


def spec_differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return one line for every field in which two specs differ: ``field: found → asked``."""
    absent = "(absent)"
    return [
        f"{key}: {found.get(key, absent)!r} → {asked.get(key, absent)!r}"
        for key in sorted(set(found) | set(asked))
        if found.get(key, absent) != asked.get(key, absent)
    ]
