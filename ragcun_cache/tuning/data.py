"""What a tuning works on: a collection with its vectors, texts and BM25 index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.origin import Origin, origin_of
from ragcun_cache.errors import CacheError
from ragcun_cache.heads.store import HeadRecord, load_head
from ragcun_cache.home import Home
from ragcun_cache.retrieval.bm25 import Bm25Index
from ragcun_cache.role import Role
from ragcun_cache.tuning.queries import Fold, QuerySet
from ragcun_cache.tuning.vectors import Source

# Scores of queries with all passages that are held at once, for BM25 and each temperature of query memory: 0.5 GB each.
_MAX_SCORES = 2**27


class Data:
    """One collection with its caches, texts and BM25 index, each read when it is needed."""

    def __init__(self, collection: Collection, pair: CachePair, home: Home, heads: Sequence[HeadRecord]) -> None:
        self.collection = collection
        self.pair = pair
        self._home = home
        self._heads = heads

    @cached_property
    def source(self) -> Source:
        """The vectors, and the heads that may be applied to them."""
        heads = {record.name: load_head(record.folder).head for record in self._heads}
        return Source(self.pair.query.array(), self.pair.passage.array(), heads)

    @cached_property
    def bm25(self) -> Bm25Index:
        """The index of the texts. Raises CacheError if its passages are not those of the cache."""
        index = Bm25Index.of(self.collection, self._home)
        if index.ids != self.pair.passage.ids:
            raise CacheError(f"the cached passages of {self.collection.name} are not those of the collection")
        return index

    @cached_property
    def origin(self) -> Origin:
        """What the collection was sampled or made from."""
        return origin_of(self.collection.name, self._home, self.collection.folder)

    @cached_property
    def _texts(self) -> dict[str, str]:
        batches = self.collection.texts(Role.QUERY)
        return {query_id: text for batch in batches for query_id, text in zip(batch.ids, batch.texts, strict=True)}

    @property
    def splits(self) -> list[str]:
        """The splits that may be learnt from: train and dev, unless it is tested on."""
        known = self.collection.splits()
        return [split for split in ("train", "dev") if split in known and split != self.collection.test_split]

    def judgements(self, split: str) -> Judgements:
        """Return those of a split."""
        return Judgements.of(self.collection.qrels(split), self.pair)

    def judged(self, count: int, seed: int, *, folds: int) -> Judgements | None:
        """Return at most ``count`` of the queries that are judged in any of ``splits``; None where there are none.

        ``folds`` is the number of sets of dev queries, of this and other collections, that there are at once.
        """
        parts = [self.judgements(split) for split in self.splits]
        if not sum(map(len, parts)):
            return None
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.joined(part.take(np.flatnonzero(~np.isin(part.query_m, whole.query_m))))
        return self.drawn(whole, count, seed, folds=folds)

    def queries(self, rows: NDArray[np.int64], train: Judgements | None) -> QuerySet:
        """Return the queries at these rows of the cache, against the whole corpus."""
        ids = [self.pair.query.ids[row] for row in rows.tolist()]
        return QuerySet(self.source, self.source.query_md[rows], [self._texts[one] for one in ids], self.bm25, train)

    def fold(self, dev: Judgements, train: Judgements | None) -> Fold:
        """Return these dev queries with what may be learnt from."""
        own_q = np.full(len(dev), -1, np.int64)
        if self.collection.ignore_identical_ids:
            row_of = {passage_id: row for row, passage_id in enumerate(self.pair.passage.ids)}
            own_q = np.array([row_of.get(self.pair.query.ids[row], -1) for row in dev.query_m.tolist()], np.int64)
        return Fold(self.queries(dev.query_m, train), dev, own_q)

    def most_queries(self, folds: int = 1) -> int:
        """Return how many queries' scores with all passages may be held, where as many are held by each fold."""
        return max(_MAX_SCORES // folds // max(self.pair.passage.rows, 1), 1)

    def drawn(self, judgements: Judgements, count: int, seed: int, *, folds: int = 1) -> Judgements:
        """Return at most ``count`` of the queries, and no more than ``most_queries``."""
        return judgements.drawn(min(count, self.most_queries(folds)), seed)
