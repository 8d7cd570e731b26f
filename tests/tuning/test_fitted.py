"""What a tuning ends with: the run of the chosen system, what is stored of it, and the head that is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.subject import Subject
from ragcun_cache.home import Home
from ragcun_cache.retrieval.bm25 import Bm25Index
from ragcun_cache.tuning.data import Data
from ragcun_cache.tuning.fitted import Fitted
from ragcun_cache.tuning.spec import Feedback, Fusion, Memory, Ridge, SoftZca, Spec

SPECS = [
    Spec(dense=Ridge(strength=1.0)),
    Spec(dense=SoftZca(exponent=0.1), feedback=Feedback(passages=1, weight=0.8)),
    Spec(bm25=Fusion.RECIPROCAL_RANK),
    Spec(dense=Ridge(strength=1.0), bm25=Fusion.CONVEX, dense_weight=0.6),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.6, memory=Memory(temperature=0.1, evidence=30.0, weight=1.0)),
]


@pytest.fixture
def data(home: Home, judged_collection: Callable[..., Path]) -> Data:
    judged_collection(splits={"train": 60, "test": 100})
    collection = find_collection("topics", home)
    return Data(collection, open_pair(home.caches, collection), home, [])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many queries at once BM25 was asked."""
    asked: list[int] = []
    scores = Bm25Index.scores
    monkeypatch.setattr(Bm25Index, "scores", lambda self, texts: asked.append(len(texts)) or scores(self, texts))
    return asked


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_test_queries_are_ranked_a_few_at_a_time_with_the_same_result(
    data: Data, monkeypatch: pytest.MonkeyPatch, scored: list[int], spec: Spec
) -> None:
    subject = Subject.of(data.collection, data.pair, EvalConfig())
    fitted = Fitted(spec, data, data.judgements("train"))
    whole = fitted.rank(subject)
    uses_bm25 = bool(spec.bm25 or spec.feedback)
    assert scored == ([100] if uses_bm25 else [])
    for most, rows in ((100, [64, 36]), (40, [40, 40, 20]), (1, [1] * 100), (0, [1] * 100)):
        scored.clear()
        monkeypatch.setattr("ragcun_cache.tuning.data._MAX_SCORES", most * 150)
        found = fitted.rank(subject)
        assert scored == (rows if uses_bm25 else [])
        assert list(found) == list(whole) == subject.query_ids
        if most == 100 and spec.dense.kind == "raw":
            assert found == whole
        for one in whole:
            assert list(found[one]) == list(whole[one])
            assert np.allclose(list(found[one].values()), list(whole[one].values()), atol=1e-5)
