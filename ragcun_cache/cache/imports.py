"""Taking vectors that something else computed, such as an API, into a cache that everything here works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ragcun_cache.cache.foreign import Columns, FloatDtype, ForeignVectors, read_foreign
from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.cache.manifest import Manifest, encoder_fingerprint, spec_fingerprint
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import read_manifest
from ragcun_cache.cache.shard import Shard
from ragcun_cache.cache.writer import CacheWriter
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.template import TEMPLATE, compose_text
from ragcun_cache.errors import CacheError
from ragcun_cache.files import sha256_json
from ragcun_cache.progress import progress
from ragcun_cache.provenance import library_versions, source_commit
from ragcun_cache.role import Role

_BLOCK_ROWS = 4096
_EXAMPLES = 3


class ImportConfig(BaseModel):
    """Where the vectors come from, as far as anybody can say. All but the columns is part of the spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str = Field(min_length=1)
    """Of the model that computed them, such as ``openai/text-embedding-3-small``."""
    prompt: str = ""
    """What was put before every text of this role; queries and passages may differ in it."""
    settings: dict[str, str] = {}
    """Anything else that the vectors depend on. Must be the same for queries and passages of one encoder."""
    storage_dtype: Literal["float16", "float32"] = "float16"
    shard_rows: int = Field(default=65_536, ge=1)
    """Rows that become durable together."""
    id_column: str = "id"
    vector_column: str = "vector"
    vector_dtype: FloatDtype | None = None
    """Of vectors that are bytes, where the file does not say it."""

    def spec(self, role: Role) -> dict[str, object]:
        """Return what makes a vector of this import what it is."""
        return {
            "model_id": self.model_id,
            "backend": "imported",
            "precision": "unknown",
            "role": str(role),
            "prompt": self.prompt,
            "template": TEMPLATE,
            "storage_dtype": self.storage_dtype,
            "settings": self.settings,
        }


def import_vectors(
    collection: Collection, role: Role, vectors: Path, ids: Path | None, config: ImportConfig, caches: Path
) -> CacheLayout:
    """Write a cache of vectors that another tool computed, in the order of the collection, and return where it is.

    The vectors are stored with unit norm, their norms beside them; a vector of zeros stays one. A column ``norm`` says
    what the norms are of vectors that were normalised before, as ``caches export`` writes it. Importing the same
    files again does nothing; an import that was interrupted goes on.

    Args:
        collection: whose texts they are of.
        role: queries or passages.
        vectors: as :func:`ragcun_cache.cache.foreign.read_foreign` takes them.
        ids: for .npy only.
        config: where they come from.
        caches: the folder of all caches.

    Raises:
        CollectionError: the collection cannot be read.
        CacheError: ids are not exactly those of the collection, a vector or norm is not finite, a file cannot be read,
            or other vectors were imported under the same name.
    """
    content = collection.content_sha256(role)
    wanted, digests = _texts(collection, role, config.prompt)
    caches.mkdir(parents=True, exist_ok=True)
    columns = Columns(config.id_column, config.vector_column, config.vector_dtype)
    foreign = read_foreign(vectors, ids, columns, caches)
    positions = _positions(foreign.ids, wanted, vectors, f"{collection.name} {role}")
    spec = config.spec(role)
    fingerprint = spec_fingerprint(spec)
    layout = CacheLayout.of(caches, collection.name, role, fingerprint, content)
    # The same file read by other columns is another source.
    read_by = config.model_dump(mode="json", include={"id_column", "vector_column", "vector_dtype"})
    if foreign.norms is not None:
        read_by["norm_column"] = True
    source = sha256_json({"file": foreign.sha256, **read_by})
    asked = Manifest(
        collection=collection.name,
        role=role,
        content_sha256=content,
        spec=spec,
        fingerprint=fingerprint,
        encoder=encoder_fingerprint(spec),
        dim=foreign.vectors_nd.shape[1],
        dtype=config.storage_dtype,
        shard_rows=config.shard_rows,
        total_rows=len(wanted),
        provenance={
            "created": datetime.now(UTC).isoformat(),
            "source": {"name": vectors.name, "sha256": source},
            "versions": library_versions(),
            "commit": source_commit(),
        },
    )
    _check_same_source(layout, source)
    label = f"import {collection.name} {role}"
    with CacheWriter(layout, asked) as writer, progress(label, "rows", len(wanted) - writer.manifest.rows) as advance:
        if not writer.manifest.finished:
            _check_recorded(writer, wanted, digests)
        while writer.manifest.rows < len(wanted):
            start = writer.manifest.rows
            rows = slice(start, min(start + writer.manifest.shard_rows, len(wanted)))
            unit_nd, norms = _unit(foreign, positions[rows], wanted[rows], config.storage_dtype, vectors)
            writer.append(
                Shard(
                    ids=wanted[rows],
                    vectors_nd=unit_nd,
                    text_sha256=digests[rows],
                    n_tokens=np.zeros(len(unit_nd), np.int32),
                    truncated=np.zeros(len(unit_nd), np.bool_),
                    norms=norms,
                )
            )
            advance(len(unit_nd))
        if collection.content_sha256(role) != content:
            raise CacheError("the collection changed meanwhile", where=collection.folder, fix="run the same again")
        writer.finish()
    return layout


def _texts(collection: Collection, role: Role, prompt: str) -> tuple[list[str], list[bytes]]:
    """Return ids and text hashes in collection order."""
    ids: list[str] = []
    digests: list[bytes] = []
    for batch in collection.texts(role):
        ids += batch.ids
        for title, text in zip(batch.titles, batch.texts, strict=True):
            digests.append(sha256((prompt + compose_text(title, text)).encode("utf-8", "surrogatepass")).digest())
    return ids, digests


def _check_recorded(writer: CacheWriter, ids: list[str], digests: list[bytes]) -> None:
    """Compare the shards of an earlier attempt with the texts as they are."""
    start = 0
    for index, shard in enumerate(writer.manifest.shards):
        rows = slice(start, start + shard.rows)
        writer.check_recorded(index, ids[rows], digests[rows])
        start += shard.rows


def _positions(found: list[str], wanted: list[str], where: Path, what: str) -> NDArray[np.int64]:
    """Return the row in ``found`` of every id in ``wanted``; the two must hold the same ids, each once."""
    row_of = {identifier: row for row, identifier in enumerate(found)}
    wanted_ids = set(wanted)
    repeated = Counter(found) if len(row_of) < len(found) else Counter()
    problems = {
        "missing": [identifier for identifier in wanted if identifier not in row_of],
        "not in the collection": [identifier for identifier in row_of if identifier not in wanted_ids],
        "more than once": [identifier for identifier, times in repeated.items() if times > 1],
    }
    lines = [f"{len(some):,} {problem} ({_examples(some)})" for problem, some in problems.items() if some]
    if lines:
        raise CacheError(
            f"the ids are not those of {what}",
            where=where,
            expected=f"each of its {len(wanted):,} ids once, in any order",
            found="; ".join(lines),
        )
    return np.fromiter((row_of[identifier] for identifier in wanted), np.int64, len(wanted))


def _examples(ids: Iterable[str]) -> str:
    some = list(ids)
    return ", ".join(repr(identifier) for identifier in some[:_EXAMPLES]) + (", …" if len(some) > _EXAMPLES else "")


def _check_same_source(layout: CacheLayout, source_sha256: str) -> None:
    if not layout.manifest.exists():
        return
    manifest = read_manifest(LocalPlace(layout.folder))
    if not manifest.rows and not manifest.complete:
        # Of an import whose first rows were refused nothing is left that another one could be mixed with.
        layout.manifest_copy.unlink(missing_ok=True)
        layout.manifest.unlink()
        return
    found = manifest.provenance.get("source", {}).get("sha256")
    if found != source_sha256:
        raise CacheError(
            "other vectors of the same model and settings were imported before",
            where=layout.folder,
            expected=f"files with sha256 {found}",
            found=source_sha256,
            fix="tell them apart (--provenance version=2), or remove the folder",
        )


def _unit(
    foreign: ForeignVectors, positions: NDArray[np.int64], ids: list[str], dtype: str, where: Path
) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Return unit vectors and norms of the rows at ``positions``, computed in float64, a block at a time."""
    unit_nd = np.empty((len(positions), foreign.vectors_nd.shape[1]), dtype=dtype)
    norms = np.empty(len(positions), np.float32)
    for start in range(0, len(positions), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        block_nd = foreign.vectors_nd[positions[block]].astype(np.float64)
        norm_n = np.sqrt(np.einsum("nd,nd->n", block_nd, block_nd))
        with np.errstate(over="ignore"):
            norms[block] = norm_n
        if not np.isfinite(norms[block]).all():
            row = start + int(np.flatnonzero(~np.isfinite(norms[block]))[0])
            raise CacheError(
                "a vector is not finite", where=f"{where}, row {positions[row]}", found=f"the vector of {ids[row]!r}"
            )
        unit_nd[block] = block_nd / np.where(norm_n == 0, 1, norm_n)[:, None]
        if foreign.norms is None:
            continue
        with np.errstate(over="ignore"):
            norms[block] = foreign.norms[positions[block]]
        # What is 0 is the norm of a vector of zeros, and of no other.
        wrong = ~np.isfinite(norms[block]) | (norms[block] < 0) | ((norms[block] == 0) != (norm_n == 0))
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise CacheError(
                "a norm is not that of a vector",
                where=f"{where}, row {positions[row]}",
                expected="a finite number above 0, and 0 only for a vector of zeros",
                found=f"{norms[row]} for {ids[row]!r}",
            )
    return unit_nd, norms
