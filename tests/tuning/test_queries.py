from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.evaluation.metrics import score_run
from ragcun_cache.home import Home
from ragcun_cache.retrieval.bm25 import Bm25Index
from ragcun_cache.retrieval.run import drop_identical
from ragcun_cache.retrieval.search import search
from ragcun_cache.similarity import Similarity
from ragcun_cache.tuning.queries import Fold, QuerySet
from ragcun_cache.tuning.spec import Feedback, Fusion, Memory, Raw, Spec
from ragcun_cache.tuning.vectors import Source


@pytest.fixture
def fold(home: Home, judged_collection: Callable[..., Path]) -> Fold:
    judged_collection(splits={"train": 120, "dev": 80}, words=1.0)
    collection = find_collection("topics", home)
    pair = open_pair(home.caches, collection)
    train, dev = (Judgements.of(collection.qrels(split), pair) for split in ("train", "dev"))
    source = Source(pair.query.array(), pair.passage.array(), {})
    texts = {one: text for batch in collection.texts("query") for one, text in zip(batch.ids, batch.texts, strict=True)}
    queries = QuerySet(
        source,
        source.query_md[dev.query_m],
        [texts[pair.query.ids[row]] for row in dev.query_m],
        Bm25Index.of(collection, home),
        train,
    )
    return Fold(queries, dev, np.full(len(dev), -1))


SPECS = [
    Spec(),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.6),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.0),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.7, feedback=Feedback(passages=2, weight=0.6)),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.5, memory=Memory(temperature=0.1, evidence=30.0, weight=1.0)),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_ndcg_is_that_of_the_run(fold: Fold, spec: Spec) -> None:
    scored = fold.queries.scored(fold.queries.source.vectors(Raw(), fold.queries.train), spec, (0.1,))
    query_ids = [f"q{row}" for row in fold.dev.query_m]
    run = scored.pool.run(scored.fused(spec), query_ids, [f"p{row}" for row in range(150)], 100)
    qrels = {query_id: {f"p{fold.dev.passage_j[fold.dev.start_m1[i]]}": 1} for i, query_id in enumerate(query_ids)}
    expected = dict(zip(sorted(query_ids), score_run(run, qrels).values["ndcg@10"], strict=True))
    found = dict(zip(query_ids, fold.ndcg(scored, spec), strict=True))
    assert found == pytest.approx(expected)


def test_raw_vectors_rank_as_the_exact_search_does(fold: Fold) -> None:
    queries = fold.queries
    scored = queries.scored(queries.source.vectors(Raw(), None), Spec())
    ids, passages = [f"q{i}" for i in range(len(fold.dev))], [f"p{row}" for row in range(150)]
    run = scored.pool.run(scored.fused(Spec()), ids, passages, 10)
    exact = search(
        queries.query_qd, ids, queries.source.passage_nd, passages, Similarity.COSINE, 10, drop_identical_ids=False
    )
    # Scores that are equal but for their last bit may change places.
    same = [list(run[one])[:5] == list(exact[one])[:5] for one in ids]
    assert sum(same) >= len(ids) - 2


def test_the_passage_with_the_querys_own_id_is_dropped(fold: Fold) -> None:
    best = np.argmax(fold.queries.query_qd @ fold.queries.source.passage_nd.T, axis=1)
    scored = fold.queries.scored(fold.queries.source.vectors(Raw(), None), Spec())
    dropped = Fold(fold.queries, fold.dev, best).ndcg(scored, Spec())
    own = best == fold.dev.passage_j
    assert own.any() and not dropped[own].any()
    kept = fold.ndcg(scored, Spec())[~own]
    assert (dropped[~own] >= kept).all()
    assert drop_identical({"a": {"a": 1.0, "b": 0.5}}, 1)[0] == {"a": {"b": 0.5}}


def test_unseen_gold_is_gold_of_no_training_query(fold: Fold) -> None:
    gold = set(fold.queries.train.passage_j.tolist())
    assert fold.unseen.tolist() == [row not in gold for row in fold.dev.passage_j.tolist()]
    assert 0 < fold.unseen.sum() < len(fold.dev)
