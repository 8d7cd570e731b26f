"""A cheap encoder: caches of any size, of vectors that cost nothing to compute but look real."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CacheLayout, CacheWriter, Manifest, Shard
from ragcun_cache.cache.layout import VectorFormat
from ragcun_cache.cache.manifest import encoder_fingerprint, spec_fingerprint
from ragcun_cache.role import Role

DIM = 768


def unit_vectors(rows: int, *, seed: int = 0) -> NDArray[np.float16]:
    """Return (rows, 768) float16 vectors of norm 1 in directions drawn evenly."""
    drawn_nd = np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)
    drawn_nd /= np.linalg.norm(drawn_nd, axis=1, keepdims=True)
    return drawn_nd.astype(np.float16)


def write_cache(
    caches: Path,
    rows: int,
    shard_rows: int,
    *,
    vector_format: VectorFormat = "memmap",
    collection: str = "fake",
    role: Role = Role.PASSAGE,
) -> Path:
    """Stream ``rows`` vectors through ``CacheWriter`` and return the folder; memory is that of two shards.

    Shard i is the first one with its dimensions turned by i, so no two rows of the first 768 shards are the same.
    """
    spec = {"model_id": "fake", "backend": "fake", "precision": "fp16", "role": str(role)}
    content = sha256(f"{collection} {rows}".encode()).hexdigest()
    layout = CacheLayout.of(caches, f"{collection}-{vector_format}", role, spec_fingerprint(spec), content)
    asked = Manifest(
        collection=collection,
        role=role,
        content_sha256=content,
        spec=spec,
        fingerprint=spec_fingerprint(spec),
        encoder=encoder_fingerprint(spec),
        dim=DIM,
        dtype="float16",
        format=vector_format,
        shard_rows=shard_rows,
        total_rows=rows,
    )
    first_nd = unit_vectors(min(rows, shard_rows))
    with CacheWriter(layout, asked) as writer:
        for index, start in enumerate(range(0, rows, shard_rows)):
            ids = [str(row) for row in range(start, min(start + shard_rows, rows))]
            writer.append(
                Shard(
                    ids=ids,
                    vectors_nd=np.roll(first_nd[: len(ids)], index, axis=1),
                    text_sha256=[sha256(identifier.encode()).digest() for identifier in ids],
                    n_tokens=np.full(len(ids), 100, np.int32),
                    truncated=np.zeros(len(ids), bool),
                    norms=np.ones(len(ids), np.float32),
                )
            )
        writer.finish()
    return layout.folder
