"""A cheap encoder: caches of any size, of vectors that cost nothing to compute but look real."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CacheLayout, CacheWriter, Manifest, Shard
from ragcun_cache.cache.layout import VectorFormat
from ragcun_cache.cache.manifest import encoder_fingerprint, spec_fingerprint
from ragcun_cache.encoder.choice import Choice
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.tokens import Tokens
from ragcun_cache.role import Role

DIM = 768
_MAX_SEQ_LENGTH = 384
_BATCH_TOKENS = 16_384


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


class FakeBackend:
    """A model whose tokens are words and whose vectors are drawn beforehand."""

    dim = DIM

    def __init__(self) -> None:
        self.batch_tokens = _BATCH_TOKENS
        self._unit_nd = unit_vectors(_BATCH_TOKENS).astype(np.float32)

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return a token a word: how many letters it has."""
        input_ids = [[len(word) for word in text.split()[:_MAX_SEQ_LENGTH]] for text in texts]
        return Tokens(input_ids, np.zeros(len(texts), bool))

    def embed(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return vectors that have nothing to do with the tokens."""
        return self._unit_nd[: len(input_ids)], np.ones(len(input_ids), np.float32)


class FakeModel:
    """What an engine asks of a model, around a `FakeBackend`."""

    config = EncodeConfig(model="fake", backend="torch", precision="fp32", device="cpu")
    choice = Choice("torch", "fp32", "")

    def __init__(self) -> None:
        self.backend = FakeBackend()

    def spec(self, role: Role) -> EncoderSpec:
        """Return an identity that no real model has."""
        return EncoderSpec(
            model_id="fake",
            weights={},
            tokenizer={},
            modules=[],
            max_seq_length=_MAX_SEQ_LENGTH,
            role=role,
            prompt="",
            precision="fp32",
            backend="torch",
            storage_dtype="float16",
        )
