"""Searching a cached collection with words of one's own: what the raw encoder finds, and what a head does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.blocks import encode_rows
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.template import compose_text
from ragcun_cache.evaluation.subject import Encode
from ragcun_cache.progress import silent
from ragcun_cache.retrieval.search import BLOCK_ROWS, search_blocks
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity


@dataclass(frozen=True)
class Searcher:
    """The raw encoder or a head: its name, how it maps cached vectors, and how it compares them."""

    name: str
    encode: Encode
    similarity: Similarity


@dataclass(frozen=True)
class Passage:
    """A passage that was found, with its score and its text."""

    id: str
    score: float
    title: str
    text: str


def encode_query(words: str, model: FrozenModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the unit vector (1, d) of a query, rounded as the cache stores it, and its norm (1,) before that.

    Raises:
        EncoderError: the encoder returns a vector that is not finite.

    """
    spec = model.spec(Role.QUERY)
    row = encode_rows(["words"], [compose_text("", words)], spec, model.backend, silent)
    return row.vectors_nd.astype(np.float32), row.norms


def look_up(
    query_1d: NDArray[np.float32],
    norms_1: NDArray[np.float32],
    pair: CachePair,
    collection: Collection,
    searchers: Sequence[Searcher],
    k: int,
) -> list[list[Passage]]:
    """Return the ``k`` best passages of the whole corpus for each searcher, best first.

    Args:
        query_1d: (1, d) unit vector of the query, of the encoder that ``pair`` is of.
        norms_1: (1,) its norm before it was normalised.
        pair: the cached vectors.
        collection: where the texts are.
        searchers: what searches.
        k: passages for each, fewer only where there are fewer.

    """
    found = [
        search_blocks(
            one.encode(query_1d, norms_1, Role.QUERY),
            ["words"],
            _encoded_passages(pair, one.encode),
            pair.passage.ids,
            one.similarity,
            k,
            drop_identical_ids=False,
        )["words"]
        for one in searchers
    ]
    texts = _texts(collection, {passage_id for run in found for passage_id in run})
    return [[Passage(passage_id, score, *texts[passage_id]) for passage_id, score in run.items()] for run in found]


def _encoded_passages(pair: CachePair, encode: Encode) -> Iterator[NDArray[np.float32]]:
    first = 0
    for vectors_bd in pair.passage.blocks(BLOCK_ROWS):
        yield encode(vectors_bd, pair.passage.norms[first : first + len(vectors_bd)], Role.PASSAGE)
        first += len(vectors_bd)


def _texts(collection: Collection, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Return id -> (title, text); the file is read no further than the last that is wanted."""
    found: dict[str, tuple[str, str]] = {}
    for batch in collection.texts(Role.PASSAGE):
        for passage_id, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True):
            if passage_id in wanted:
                found[passage_id] = (title, text)
        if len(found) == len(wanted):
            break
    return found
