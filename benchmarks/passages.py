"""Texts to encode: a fixed draw from the collection that every installation can make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.collections import find_collection
from ragcun_cache.encoder.template import compose_text
from ragcun_cache.errors import CollectionError
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.training.pairs import TrainingData


def _texts(home: Home, collection: str, role: Role) -> dict[str, str]:
    """Return every text of ``role`` by its id, as it is encoded."""
    return {
        identifier: compose_text(title, text)
        for batch in find_collection(collection, home, download=collection == "pydocs").texts(role)
        for identifier, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True)
    }


def some_texts(home: Home, collection: str, role: Role, count: int) -> tuple[list[str], str]:
    """Return ``count`` texts of ``collection``, drawn evenly with a fixed seed, and in words what they are.

    They are of pydocs where the collection is not on this machine.
    """
    try:
        find_collection(collection, home, download=False)
    except CollectionError:
        collection = "pydocs"
    texts = list(_texts(home, collection, role).values())
    drawn = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:count]]
    return drawn, f"{'queries' if role is Role.QUERY else 'passages'} of `{collection}`"


def texts_of_pairs(home: Home, data: TrainingData, pair_p2: NDArray[np.int64]) -> list[tuple[str, str]]:
    """Return the (query, passage) texts of pairs (p, 2) that are rows of the data's caches."""
    queries, passages = (_texts(home, data.collection, role) for role in Role)
    query_ids, passage_ids = data.caches.query.ids, data.caches.passage.ids
    return [(queries[query_ids[query]], passages[passage_ids[passage]]) for query, passage in pair_p2.tolist()]
