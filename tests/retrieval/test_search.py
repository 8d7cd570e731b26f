from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError
from ragcun_cache.retrieval.run import Run
from ragcun_cache.retrieval.search import search, search_blocks
from ragcun_cache.similarity import Similarity


def ids(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def brute_force(
    query_qe: NDArray[np.floating],
    query_ids: list[str],
    passage_ne: NDArray[np.floating],
    passage_ids: list[str],
    similarity: Similarity,
    k: int,
) -> Run:
    run: Run = {}
    for query_id, query in zip(query_ids, query_qe.astype(np.float64), strict=True):
        scored = []
        for passage_id, passage in zip(passage_ids, passage_ne.astype(np.float64), strict=True):
            if similarity is Similarity.L2:
                score = -float(((query - passage) ** 2).sum())
            else:
                score = float((query * passage).sum())
                norm = np.linalg.norm(query) * np.linalg.norm(passage)
                if similarity is Similarity.COSINE:
                    score = score / norm if norm else 0.0
            scored.append((float(np.float32(score)), passage_id))
        run[query_id] = {passage_id: score for score, passage_id in sorted(scored, reverse=True)[:k]}
    return run


@given(
    seed=st.integers(0, 2**32 - 1),
    n_queries=st.integers(0, 4),
    n_passages=st.integers(0, 120),
    k=st.integers(1, 130),
    block_rows=st.integers(1, 130),
    similarity=st.sampled_from([Similarity.DOT, Similarity.L2]),
)
@settings(max_examples=150)
def test_equals_brute_force_for_any_block_size_with_many_ties(
    seed: int, n_queries: int, n_passages: int, k: int, block_rows: int, similarity: Similarity
) -> None:
    # Small integers: scores are exact and most of them tie, so the order rests on the ids.
    rng = np.random.default_rng(seed)
    query_qe = rng.integers(-1, 2, (n_queries, 3)).astype(np.float32)
    passage_ne = rng.integers(-1, 2, (n_passages, 3)).astype(np.float32)
    passage_ids = [str(i) for i in rng.permutation(n_passages)]
    args = (query_qe, ids("q", n_queries), passage_ne, passage_ids, similarity, k)
    found = search(*args, drop_identical_ids=False, block_rows=block_rows)
    expected = brute_force(*args)
    assert found == expected
    assert [list(scores) for scores in found.values()] == [list(scores) for scores in expected.values()]


@pytest.mark.parametrize("similarity", list(Similarity))
def test_block_size_does_not_change_real_valued_results(similarity: Similarity) -> None:
    # Queries times dims are enough for FAISS to change over to BLAS, whose rounding depends on the block.
    rng = np.random.default_rng(0)
    passage_ne = rng.normal(size=(900, 512)).astype(np.float32)
    passage_ne[300:600] = passage_ne[:300]  # duplicates that lie in other blocks and must tie exactly
    query_qe = rng.normal(size=(260, 512)).astype(np.float32)
    args = (query_qe, ids("q", 260), passage_ne, ids("p", 900), similarity, 50)
    whole = search(*args, drop_identical_ids=False)
    for block_rows in (64, 301):
        assert search(*args, drop_identical_ids=False, block_rows=block_rows) == whole
    assert all(len(scores) == 50 for scores in whole.values())


def test_cosine_is_the_dot_product_of_unit_vectors() -> None:
    rng = np.random.default_rng(1)
    query_qe = rng.normal(size=(5, 16)).astype(np.float32)
    passage_ne = (rng.normal(size=(200, 16)) * rng.uniform(0.01, 100, (200, 1))).astype(np.float32)
    args = (query_qe, ids("q", 5), passage_ne, ids("p", 200), Similarity.COSINE, 20)
    found, expected = search(*args, drop_identical_ids=False), brute_force(*args)
    assert [list(scores) for scores in found.values()] == [list(scores) for scores in expected.values()]
    assert found["q0"] == pytest.approx(expected["q0"], abs=1e-7)


def test_zero_vectors_score_zero_under_cosine() -> None:
    query_qe = np.array([[1, 0], [0, 0]], dtype=np.float32)
    passage_ne = np.array([[-1, 0], [0, 0], [1, 1e-30]], dtype=np.float32)
    run = search(query_qe, ["a", "zero"], passage_ne, ["x", "y", "z"], Similarity.COSINE, 3, drop_identical_ids=False)
    assert list(run["a"].items()) == [("z", 1.0), ("y", 0.0), ("x", -1.0)]
    assert list(run["zero"].items()) == [("z", 0.0), ("y", 0.0), ("x", 0.0)]


@pytest.mark.parametrize("similarity", list(Similarity))
@pytest.mark.parametrize("block_rows", [50, 99, 100, 101, 149, 150, 151, 300])
def test_the_best_and_their_ties_are_found_on_either_side_of_a_border(similarity: Similarity, block_rows: int) -> None:
    rng = np.random.default_rng(11)
    query_qe = rng.normal(size=(3, 64)).astype(np.float32)
    passage_ne = (0.1 * rng.normal(size=(300, 64))).astype(np.float16)
    borders = [
        0,
        *(row for first in range(block_rows, 301, block_rows) for row in (first - 1, first) if row < 300),
        299,
    ]
    for row in borders:
        passage_ne[row] = query_qe[row % 3]
    args = (query_qe, ids("q", 3), passage_ne, ids("p", 300), similarity, 5)
    found = search(*args, drop_identical_ids=False, block_rows=block_rows)
    expected = brute_force(*args)
    assert {query_id: list(scores) for query_id, scores in found.items()} == {
        query_id: list(scores) for query_id, scores in expected.items()
    }


def test_blocks_of_any_sizes_are_one_corpus() -> None:
    rng = np.random.default_rng(12)
    query_qe, passage_ne = rng.normal(size=(4, 16)), rng.normal(size=(500, 16)).astype(np.float32)
    args = (ids("p", 500), Similarity.COSINE, 20)
    whole = search(query_qe, ids("q", 4), passage_ne, *args, drop_identical_ids=False)
    blocks = np.split(passage_ne, [1, 1, 90, 400, 499])
    assert search_blocks(query_qe, ids("q", 4), iter(blocks), *args, drop_identical_ids=False) == whole
    with pytest.raises(EvaluationError, match="passage vectors and passage ids do not match"):
        search_blocks(query_qe, ids("q", 4), iter(blocks[:-1]), *args, drop_identical_ids=False)


def test_more_queries_than_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    query_qe, passage_ne = rng.normal(size=(20, 8)), rng.integers(-1, 2, (300, 8)).astype(np.float32)
    args = (query_qe, ids("q", 20), passage_ne, ids("p", 300), Similarity.DOT, 7)
    whole = search(*args, drop_identical_ids=False)
    monkeypatch.setattr("ragcun_cache.retrieval.search._QUERY_ROWS", 6)
    assert search(*args, drop_identical_ids=False, block_rows=64) == whole == brute_force(*args)


def test_vectors_whose_products_underflow_in_float32_have_their_cosine() -> None:
    rng = np.random.default_rng(14)
    query_qe = rng.normal(size=(2, 8)).astype(np.float32)
    passage_ne = rng.normal(size=(60, 8)).astype(np.float32)
    scale_n = np.where(np.arange(60) % 2, np.float32(1e-36), np.float32(1.0))[:, None]
    args = (ids("p", 60), Similarity.COSINE, 10)
    found = search(query_qe, ids("q", 2), passage_ne * scale_n, *args, drop_identical_ids=False)
    expected = search(query_qe, ids("q", 2), passage_ne, *args, drop_identical_ids=False)
    assert {query: list(scores) for query, scores in found.items()} == {
        query: list(scores) for query, scores in expected.items()
    }


def test_vectors_whose_float32_products_overflow_are_not_lost() -> None:
    # |q|^2 + |p|^2 - 2qp overflows on the way to distances that do not.
    passage_ne = np.full((300, 3), 1e19, np.float32) * np.linspace(0.8, 1.0, 300, dtype=np.float32)[:, None]
    query_qe = passage_ne[[10, 290]]
    args = (query_qe, ids("q", 2), passage_ne, ids("p", 300), Similarity.L2, 5)
    found = search(*args, drop_identical_ids=False)
    assert {query: list(scores) for query, scores in found.items()} == {
        query: list(scores) for query, scores in brute_force(*args).items()
    }


@pytest.mark.parametrize("similarity", [Similarity.DOT, Similarity.L2])
def test_finds_what_faiss_finds(similarity: Similarity) -> None:
    import faiss

    rng = np.random.default_rng(15)
    query_qe, passage_ne = rng.normal(size=(20, 96)).astype(np.float32), rng.normal(size=(2000, 96)).astype(np.float32)
    index = faiss.IndexFlatL2(96) if similarity is Similarity.L2 else faiss.IndexFlatIP(96)
    index.add(passage_ne)
    _, row_qk = index.search(query_qe, 50)
    found = search(
        query_qe, ids("q", 20), passage_ne, ids("p", 2000), similarity, 50, drop_identical_ids=False, block_rows=333
    )
    assert [list(scores) for scores in found.values()] == [[f"p{row}" for row in row_k] for row_k in row_qk]


def test_every_passage_tied_gives_the_largest_ids() -> None:
    # A collapsed head: more ties than candidates, in several blocks.
    passage_ne = np.ones((500, 8), dtype=np.float32)
    passage_ids = [f"{i:03d}" for i in range(500)]
    for similarity in Similarity:
        run = search(
            np.ones((1, 8), np.float32), ["q"], passage_ne, passage_ids, similarity, 10,
            drop_identical_ids=False, block_rows=64,
        )  # fmt: skip
        assert list(run["q"]) == [f"{i:03d}" for i in range(499, 489, -1)]


def test_l2_is_right_for_small_differences_around_a_large_mean() -> None:
    # So many queries that FAISS takes |q|^2 + |p|^2 - 2qp, which by itself gives 0 for every one of these distances.
    rng = np.random.default_rng(2)
    mean = 0.2 * rng.normal(size=768)
    query_qe = (mean + 2e-5 * rng.normal(size=(300, 768))).astype(np.float32)
    passage_ne = (mean + 2e-5 * rng.normal(size=(400, 768))).astype(np.float32)
    args = (ids("q", 300), passage_ne, ids("p", 400), Similarity.L2, 10)
    found = search(query_qe, *args, drop_identical_ids=False)
    expected = brute_force(query_qe[:10], args[0][:10], *args[1:])
    assert {query_id: list(found[query_id]) for query_id in expected} == {q: list(s) for q, s in expected.items()}


def test_half_precision_vectors_are_scored_in_full_precision() -> None:
    rng = np.random.default_rng(3)
    query_qe = rng.normal(size=(4, 32)).astype(np.float16)
    passage_ne = rng.normal(size=(300, 32)).astype(np.float16)
    args = (ids("q", 4), ids("p", 300))
    half = search(query_qe, args[0], passage_ne, args[1], Similarity.DOT, 10, drop_identical_ids=False)
    full = search(
        query_qe.astype(np.float32), args[0], passage_ne.astype(np.float32), args[1], Similarity.DOT, 10,
        drop_identical_ids=False,
    )  # fmt: skip
    assert half == full


def test_identical_ids_are_dropped_and_k_others_returned() -> None:
    vectors = np.eye(5, dtype=np.float32)
    same = ids("x", 5)
    kept = search(vectors, same, vectors, same, Similarity.DOT, 2, drop_identical_ids=False)
    dropped = search(vectors, same, vectors, same, Similarity.DOT, 2, drop_identical_ids=True)
    assert list(kept["x0"]) == ["x0", "x4"]
    assert list(dropped["x0"]) == ["x4", "x3"]
    assert all(len(scores) == 2 and query_id not in scores for query_id, scores in dropped.items())


@pytest.mark.parametrize("similarity", list(Similarity))
def test_few_or_no_passages_and_queries(similarity: Similarity) -> None:
    one = np.ones((1, 4), dtype=np.float32)
    none = np.empty((0, 4), dtype=np.float32)
    assert search(none, [], one, ["p"], similarity, 10, drop_identical_ids=True) == {}
    assert search(one, ["q"], none, [], similarity, 10, drop_identical_ids=True) == {"q": {}}
    assert list(search(one, ["q"], one, ["p"], similarity, 10, drop_identical_ids=True)["q"]) == ["p"]
    assert search(one, ["p"], one, ["p"], similarity, 10, drop_identical_ids=True) == {"p": {}}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_that_are_not_finite_are_refused_by_row(bad: float, role: str) -> None:
    vectors = {"query": np.ones((3, 4), np.float32), "passage": np.ones((3, 4), np.float32)}
    vectors[role][2, 1] = bad
    with pytest.raises(EvaluationError, match=f"{role} row 2"):
        search(
            vectors["query"], ids("q", 3), vectors["passage"], ids("p", 3), Similarity.COSINE, 1,
            drop_identical_ids=False, block_rows=2,
        )  # fmt: skip


def test_mismatched_input_is_refused() -> None:
    x = np.ones((2, 4), np.float32)
    with pytest.raises(EvaluationError, match="query vectors and query ids"):
        search(x, ["a"], x, ["p", "q"], Similarity.DOT, 1, drop_identical_ids=False)
    with pytest.raises(EvaluationError, match="passage ids repeat"):
        search(x, ["a", "b"], x, ["p", "p"], Similarity.DOT, 1, drop_identical_ids=False)
    with pytest.raises(EvaluationError, match="differ in dim"):
        search(x, ["a", "b"], np.ones((2, 3), np.float32), ["p", "q"], Similarity.DOT, 1, drop_identical_ids=False)
    with pytest.raises(EvaluationError, match="at least 1"):
        search(x, ["a", "b"], x, ["p", "q"], Similarity.DOT, 0, drop_identical_ids=False)


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(4)
    query_qe, passage_ne = rng.normal(size=(2, 3, 4)).astype(np.float32)
    before = query_qe.copy(), passage_ne.copy()
    for similarity in Similarity:
        search(query_qe, ids("x", 3), passage_ne, ids("x", 3), similarity, 2, drop_identical_ids=True)
    assert np.array_equal(before[0], query_qe)
    assert np.array_equal(before[1], passage_ne)
