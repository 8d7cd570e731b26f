from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ragcun_cache.errors import ConfigError, EvaluationError
from ragcun_cache.retrieval.index import KINDS, index_search, parse_index, recall_at_10
from ragcun_cache.retrieval.run import Run
from ragcun_cache.retrieval.search import search
from ragcun_cache.similarity import Similarity

QUERY_IDS = [f"q{i}" for i in range(12)]
PASSAGE_IDS = [f"p{i}" for i in range(1500)]


@pytest.fixture(scope="module")
def vectors() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    passage_ne = rng.normal(size=(1500, 48)) * rng.uniform(0.5, 2.0, (1500, 1)) + 0.3
    query_qe = passage_ne[:12] + 0.5 * rng.normal(size=(12, 48))
    return query_qe.astype(np.float32), passage_ne.astype(np.float32)


def blocks_of(passage_ne: NDArray[np.float32], rows: int = 400) -> Callable[[], Iterator[NDArray[np.float32]]]:
    return lambda: (passage_ne[first : first + rows] for first in range(0, len(passage_ne), rows))


def both(
    text: str, vectors: tuple[NDArray[np.float32], NDArray[np.float32]], similarity: Similarity
) -> tuple[Run, Run]:
    query_qe, passage_ne = vectors
    index = parse_index(text)
    assert index is not None
    found = index_search(index, query_qe, QUERY_IDS, blocks_of(passage_ne), PASSAGE_IDS, similarity, 50)
    exact = search(query_qe, QUERY_IDS, passage_ne, PASSAGE_IDS, similarity, 50, drop_identical_ids=False)
    return found, exact


@pytest.mark.parametrize("similarity", list(Similarity))
@pytest.mark.parametrize(("text", "least"), [("faiss", 1.0), ("hnsw", 0.99), ("sq8", 0.9), ("ivfpq:bytes=24", 0.6)])
def test_an_index_finds_nearly_what_exact_search_finds(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]], text: str, least: float, similarity: Similarity
) -> None:
    found, exact = both(text, vectors, similarity)
    assert recall_at_10(found, exact) >= least
    for query_id, scores in found.items():
        assert set(scores) <= set(PASSAGE_IDS)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        if text in ("faiss", "hnsw"):
            known = scores.keys() & exact[query_id].keys()
            assert [scores[one] for one in known] == pytest.approx([exact[query_id][one] for one in known], rel=1e-4)


@pytest.mark.parametrize("text", ["hnsw:m=4,ef_construction=8,ef_search=50", "ivfpq", "sq8"])
def test_the_same_vectors_give_the_same_run(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]], text: str
) -> None:
    assert both(text, vectors, Similarity.COSINE)[0] == both(text, vectors, Similarity.COSINE)[0]


def test_what_is_not_found_is_not_in_the_run(vectors: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    found, _ = both("ivfpq:lists=30,probes=1", vectors, Similarity.DOT)
    assert min(map(len, found.values())) < 50
    assert all(passage_id in PASSAGE_IDS for scores in found.values() for passage_id in scores)


def test_a_name_says_every_parameter_and_is_read_again() -> None:
    assert parse_index("flat") is None
    for text, name in (
        ("hnsw", "hnsw:ef_construction=200,ef_search=256,m=32"),
        ("hnsw:m=8", "hnsw:ef_construction=200,ef_search=256,m=8"),
        ("ivfpq:probes=4,lists=100", "ivfpq:bytes=0,lists=100,probes=4"),
        ("sq8", "sq8"),
    ):
        index = parse_index(text)
        assert index is not None
        assert index.name == name
        assert parse_index(index.name) == index
    assert sorted(KINDS) == ["faiss", "hnsw", "ivfpq", "sq8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hsnw", r"unknown index 'hsnw'(.|\n)*did you mean 'hnsw'"),
        ("hnsw:ef=3", r"unknown parameter of index hnsw 'ef'(.|\n)*ef_search"),
        ("hnsw:m=0", r"parameter m of index hnsw is out of range"),
        ("hnsw:m=x", r"parameter m of index hnsw is out of range"),
        ("sq8:bits=4", r"index sq8 has no parameters"),
        ("flat:x=1", r"index flat has no parameters"),
    ],
)
def test_what_is_no_index_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_index(text)


def test_an_index_that_cannot_be_built_is_refused(vectors: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    query_qe, passage_ne = vectors
    for text, rows, message in (
        ("ivfpq", 100, "too small"),
        ("ivfpq:bytes=7", 1500, "divide"),
        ("ivfpq:lists=1501", 1500, "at most 1,500 lists"),
    ):
        index = parse_index(text)
        assert index is not None
        with pytest.raises(EvaluationError, match=message):
            index_search(
                index, query_qe, QUERY_IDS, blocks_of(passage_ne[:rows]), PASSAGE_IDS[:rows], Similarity.DOT, 5
            )


def test_recall_is_of_the_ten_best() -> None:
    exact = {"a": {f"p{i:02d}": -float(i) for i in range(20)}, "b": {"x": 1.0}, "c": {}}
    run = {"a": {f"p{i:02d}": -float(i) for i in range(5, 20)}, "b": {"x": 1.0}, "c": {}}
    assert recall_at_10(exact, exact) == 1.0
    assert recall_at_10(run, exact) == pytest.approx((0.5 + 1.0) / 2)
