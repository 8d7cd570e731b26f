"""How much of the test a system had seen: gold passages and queries of the split that it was trained on."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.collections.collection import Collection
from ragcun_cache.evaluation.metrics import QueryScores, judged_queries
from ragcun_cache.evaluation.results import SeenGold, metric_name
from ragcun_cache.role import Role


class TrainingSplits:
    """The judgements of the splits of one collection that a system was trained or chosen by, all of them.

    A system that was trained on a part of them, because dev queries were set apart or pairs were drawn, has seen less
    than this says: what is called unseen is unseen in any case.
    """

    def __init__(self, collection: Collection, splits: Sequence[str]) -> None:
        self._collection = collection
        self._splits = splits

    @cached_property
    def gold(self) -> set[str]:
        """Passages that are relevant to a query of these splits."""
        return {passage_id for split in self._splits for _, passage_id in self._collection.pairs(split)}

    @cached_property
    def _query_ids(self) -> set[str]:
        return {query_id for split in self._splits for query_id in judged_queries(self._collection.qrels(split))}

    def seen(self, qrels: Mapping[str, Mapping[str, int]]) -> NDArray[np.bool_]:
        """Return for every judged query, in order, whether one of its relevant passages is in ``gold``, (q,)."""
        seen = [
            any(grade > 0 and passage_id in self.gold for passage_id, grade in qrels[query_id].items())
            for query_id in judged_queries(qrels)
        ]
        return np.array(seen, dtype=np.bool_)

    def repeated(self, query_ids: Sequence[str]) -> int:
        """Return how many of the queries have the id of a training query, or its text but for case and spaces."""
        wanted, texts = set(query_ids), dict[str, str]()
        training = self._query_ids
        for batch in self._collection.texts(Role.QUERY):
            texts.update(
                (query_id, _normalised(text))
                for query_id, text in zip(batch.ids, batch.texts, strict=True)
                if query_id in wanted or query_id in training
            )
        known = {texts[query_id] for query_id in training if query_id in texts}
        return sum(query_id in training or texts.get(query_id) in known for query_id in query_ids)


def seen_gold(
    splits: TrainingSplits, qrels: Mapping[str, Mapping[str, int]], scores: QueryScores, sample_of: str | None
) -> tuple[SeenGold, NDArray[np.bool_]]:
    """Return the means of ``scores`` over queries with seen and with unseen gold, and which are which, (q,)."""
    seen_q = splits.seen(qrels)

    def means(chosen_q: NDArray[np.bool_]) -> dict[str, float]:
        if not chosen_q.any():
            return {}
        return {metric_name(name, sample_of): float(one_q[chosen_q].mean()) for name, one_q in scores.values.items()}

    found = SeenGold(
        seen=int(seen_q.sum()),
        unseen=int((~seen_q).sum()),
        repeated=splits.repeated(scores.query_ids),
        seen_metrics=means(seen_q),
        unseen_metrics=means(~seen_q),
    )
    return found, seen_q


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
