"""Blocks of rows: the texts that make up a shard, on their way from the collection into the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import Shard
from ragcun_cache.cache.reuse import FoundRows
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.forward import Encoded, RowError, forward, tokenise_pieces
from ragcun_cache.encoder.phases import NOTHING_DONE, Phases
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.template import compose_text
from ragcun_cache.encoder.tokens import PackedTokens
from ragcun_cache.errors import EncoderError
from ragcun_cache.progress import Advance
from ragcun_cache.role import Role


def text_blocks(collection: Collection, role: Role, rows: int) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (ids, composed texts) of ``rows`` records at a time, the last block shorter: what makes up the shards."""
    ids: list[str] = []
    texts: list[str] = []
    for batch in collection.texts(role):
        ids += batch.ids
        texts += [compose_text(title, text) for title, text in zip(batch.titles, batch.texts, strict=True)]
        while len(ids) >= rows:
            yield ids[:rows], texts[:rows]
            ids, texts = ids[rows:], texts[rows:]
    if ids:
        yield ids, texts


@dataclass(frozen=True)
class Block:
    """The rows of one shard before they are encoded.

    Attributes:
        index: number of the shard.
        role: queries or passages.
        ids: identifiers, in collection order.
        text_sha256: of the exact strings that are encoded, 32 bytes each.
        found: rows whose vectors another cache holds.
        strings: what is to be encoded, prompts included: all rows but those that were ``found``.
        phases: what it took to get here.
    """

    index: int
    role: Role
    ids: list[str]
    text_sha256: list[bytes]
    found: FoundRows | None
    strings: list[str]
    phases: Phases = NOTHING_DONE

    @classmethod
    def of(cls, index: int, ids: list[str], texts: list[str], spec: EncoderSpec) -> Block:
        """Return the block of these rows, nothing found yet."""
        strings = [spec.prompt + text for text in texts]
        hashes = [sha256(one.encode("utf-8", "surrogatepass")).digest() for one in strings]
        return cls(index, spec.role, ids, hashes, None, strings)

    def with_found(self, found: FoundRows | None, phases: Phases) -> Block:
        """Return the same block with less to encode."""
        strings = self.strings if found is None else list(compress(self.strings, _missing(len(self.ids), found)))
        return Block(self.index, self.role, self.ids, self.text_sha256, found, strings, phases)

    def bare(self) -> Block:
        """Return what a worker needs of it: the rows to encode and nothing else."""
        ids = list(compress(self.ids, _missing(len(self.ids), self.found)))
        return Block(self.index, self.role, ids, [], None, self.strings)

    def shard(self, encoded: Encoded, dim: int, dtype: str) -> Shard:
        """Return the shard: what was found is copied, the rest is what was encoded."""
        vectors_nd = np.empty((len(self.ids), dim), dtype=dtype)
        norms = np.empty(len(self.ids), dtype=np.float32)
        n_tokens = np.empty(len(self.ids), dtype=np.int32)
        truncated = np.empty(len(self.ids), dtype=bool)
        if self.strings:
            rows = _missing(len(self.ids), self.found)
            vectors_nd[rows], norms[rows] = encoded.vectors_nd, encoded.norms
            n_tokens[rows], truncated[rows] = encoded.n_tokens, encoded.truncated
        if self.found is not None:
            there = self.found.wanted
            vectors_nd[there], norms[there] = self.found.vectors_nd, self.found.norms
            n_tokens[there], truncated[there] = self.found.n_tokens, self.found.truncated
        return Shard(self.ids, vectors_nd, self.text_sha256, n_tokens, truncated, norms)

    def error(self, error: RowError) -> EncoderError:
        """Return the error that names the row by its id."""
        row = int(np.flatnonzero(_missing(len(self.ids), self.found))[error.position])
        return EncoderError(error.problem, where=f"{self.role} {self.ids[row]!r}", found=error.found, fix=error.fix)


def _missing(rows: int, found: FoundRows | None) -> NDArray[np.bool_]:
    missing = np.ones(rows, dtype=bool)
    if found is not None:
        missing[found.wanted] = False
    return missing


def encode_rows(ids: list[str], texts: list[str], spec: EncoderSpec, backend: Backend, advance: Advance) -> Shard:
    """Encode a few rows at once, in this thread, copying nothing.

    Raises:
        EncoderError: a text does not fit in memory, or its vector is not finite.
    """
    block = Block.of(0, ids, texts, spec)
    tokens = PackedTokens.of(tokenise_pieces(block.strings, backend))
    try:
        encoded = forward(tokens, backend, spec.max_seq_length, spec.storage_dtype, advance)
    except RowError as error:
        raise block.error(error) from None
    return block.shard(encoded, backend.dim, spec.storage_dtype)
