"""Texts to encode: a fixed draw from the collection that every installation can make."""

from __future__ import annotations

import numpy as np

from ragcun_cache.collections import find_collection
from ragcun_cache.encoder.template import compose_text
from ragcun_cache.home import Home
from ragcun_cache.role import Role


def pydocs_texts(home: Home, role: Role) -> dict[str, str]:
    """Return every text of ``role`` in pydocs by its id, as it is encoded."""
    return {
        identifier: compose_text(title, text)
        for batch in find_collection("pydocs", home).texts(role)
        for identifier, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True)
    }


def some_passages(home: Home, count: int) -> list[str]:
    """Return ``count`` passages of pydocs, drawn evenly with a fixed seed."""
    texts = list(pydocs_texts(home, Role.PASSAGE).values())
    return [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:count]]


def some_pairs(home: Home, count: int) -> list[tuple[str, str]]:
    """Return ``count`` (query, passage) training pairs of pydocs, drawn evenly with a fixed seed."""
    queries, passages = pydocs_texts(home, Role.QUERY), pydocs_texts(home, Role.PASSAGE)
    pairs = find_collection("pydocs", home).pairs("train")
    chosen = [pairs[row] for row in np.random.default_rng(0).permutation(len(pairs))[:count]]
    return [(queries[query_id], passages[passage_id]) for query_id, passage_id in chosen]
