"""The manifest: what a cache holds, of which spec and collection, with a checksum for every byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ragcun_cache.cache.layout import FINGERPRINT_DIGITS
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
    """Size in bytes and sha256 of one file, as they were when it was written."""

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
    shard_rows: int
    total_rows: int
    shards: tuple[ShardRecord, ...] = ()
    complete: bool = False
    provenance: dict[str, Any] = {}

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

    def to_bytes(self) -> bytes:
        """Return the exact bytes of ``manifest.json``, which end in a checksum of all the rest."""
        content = self.model_dump(mode="json")
        content["manifest_sha256"] = sha256_json(content)
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Replace ``path`` atomically."""
        with atomic_file(path) as handle:
            handle.write(self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check ``path``.

        Raises:
            CacheError: it is missing, is not JSON, is of another schema version, or fails its checksum.
        """
        rebuild = "run the same `ragcun-cache encode` with --rebuild, or restore the file from a copy"
        try:
            found_bytes = path.read_bytes()
        except FileNotFoundError:
            raise CacheError("there is no cache here", where=path.parent, expected="a manifest.json") from None
        except OSError as error:
            raise CacheError("the manifest cannot be read", where=path, found=error) from None
        try:
            content = json.loads(found_bytes)
            checksum = content.pop("manifest_sha256")
            version = content["schema_version"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CacheError(
                "the manifest is damaged", where=path, expected="JSON with a manifest_sha256", fix=rebuild
            ) from None
        if version != SCHEMA_VERSION:
            raise CacheError(
                "the cache was written by another version of ragcun-cache",
                where=path,
                expected=f"schema version {SCHEMA_VERSION}",
                found=version,
                fix="use the version that wrote it, or encode again",
            )
        try:
            manifest = cls.model_validate(content)
        except ValidationError as error:
            raise CacheError("the manifest is damaged", where=path, found=error, fix=rebuild) from None
        if checksum != sha256_json(content) or manifest.to_bytes() != found_bytes:
            raise CacheError(
                "the manifest fails its own checksum",
                where=path,
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
