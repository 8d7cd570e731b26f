from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.retrieval.feedback import move_queries
from ragcun_cache.retrieval.fusion import convex, min_max, reciprocal_rank
from ragcun_cache.retrieval.pool import Pool


class Matrix:
    def __init__(self, score_qn: np.ndarray, unfound: float | None = None) -> None:
        self.score_qn = score_qn.astype(np.float32)
        self.unfound = unfound

    def scores(self, queries: slice) -> np.ndarray:
        return self.score_qn[queries]


def pool_of(*scores: object, depth: int = 2) -> Pool:
    systems = [Matrix(np.array(one)) for one in scores]
    return Pool.of(systems, len(systems[0].score_qn), depth)


@given(st.integers(1, 150), st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))
def test_a_pool_is_the_union_of_the_best_with_all_scores(n_queries: int, n: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.permuted(np.tile(np.arange(n), (n_queries, 1)), axis=1).astype(np.float32) for _ in range(2)]
    pool = pool_of(*scores, depth=depth)
    for query in range(n_queries):
        best = {int(row) for one in scores for row in np.argsort(-one[query])[:depth]}
        present_c = pool.present_qc[query]
        assert sorted(best) == pool.row_qc[query][present_c].tolist()
        for system, one in enumerate(scores):
            np.testing.assert_array_equal(pool.score_sqc[system, query][present_c], one[query][sorted(best)])


def test_min_max_is_per_query_and_ignores_padding() -> None:
    pool = pool_of([[1.0, 3.0, 2.0, -5.0], [7.0, 7.0, 0.0, 0.0]], [[0.0, 0.0, 9.0, 8.0], [1.0, 2.0, 0.0, 0.0]])
    assert pool.row_qc.tolist() == [[1, 2, 3], [0, 1, -1]]
    np.testing.assert_allclose(min_max(pool, 0), [[1.0, 7 / 8, 0.0], [0.0, 0.0, 0.0]])


def test_convex_fusion_goes_from_one_system_to_the_other() -> None:
    pool = pool_of([[0.0, 1.0, 0.5]], [[1.0, 0.0, 0.9]], depth=3)
    dense, words = min_max(pool, 0), min_max(pool, 1)
    orders = {w: pool.best(convex(dense, words, w), 3)[0].tolist() for w in (0.0, 0.5, 1.0)}
    assert orders == {0.0: [0, 2, 1], 0.5: [2, 0, 1], 1.0: [1, 2, 0]}


def test_reciprocal_rank_is_the_sum_over_systems() -> None:
    pool = pool_of([[3.0, 2.0, 1.0]], [[1.0, 5.0, 3.0]], depth=3)
    expected = [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]]
    np.testing.assert_allclose(reciprocal_rank(pool), expected, rtol=1e-6)


def test_what_a_system_does_not_find_it_gives_no_credit() -> None:
    dense, words = [[9.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]], [[0.0, 0.0, 7.0, 0.0, 0.0], [0.0] * 5]
    ids = ["p0", "p1", "p2", "p3", "p4"]

    def fused(order: list[int]) -> dict[str, dict[str, float]]:
        dense_qn, words_qn = (np.array(one)[:, order] for one in (dense, words))
        pool = Pool.of([Matrix(dense_qn), Matrix(words_qn, unfound=0.0)], 2, depth=3)
        return pool.run(reciprocal_rank(pool), ["x", "y"], [ids[row] for row in order], k=3)

    expected = {
        "x": {"p2": 1 / 64 + 1 / 61, "p0": 1 / 61, "p4": 1 / 62},
        "y": {"p4": 1 / 61, "p3": 1 / 62, "p2": 1 / 63},
    }
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):  # Nor does the order of the corpus play a part.
        run = fused(order)
        assert {query: list(run[query]) for query in run} == {query: list(expected[query]) for query in expected}
        for query in run:
            assert run[query] == pytest.approx(expected[query], rel=1e-6)


def test_a_run_has_no_padding_and_ties_go_to_the_larger_id() -> None:
    pool = pool_of([[1.0, 1.0, 0.0], [0.0, 0.0, 4.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 4.0]], depth=1)
    run = pool.run(np.ones(pool.row_qc.shape, np.float32), ["x", "y"], ["p0", "p1", "p2"], k=2)
    assert list(run["y"]) == ["p2"]
    both = pool_of([[1.0, 1.0, 0.0]], depth=2)
    assert list(both.run(both.score_sqc[0], ["x"], ["p0", "p1", "p2"], k=2)["x"]) == ["p1", "p0"]


def test_an_empty_corpus_gives_empty_pools() -> None:
    pool = pool_of(np.empty((3, 0)))
    assert pool.row_qc.shape == (3, 0)
    assert pool.run(min_max(pool, 0), ["x", "y", "z"], [], k=5) == {"x": {}, "y": {}, "z": {}}


def test_feedback_moves_a_query_toward_what_it_found() -> None:
    query_qd, passage_nd = np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)
    moved = move_queries(query_qd, passage_nd, np.array([[1, 2]]), 0.5)
    expected = np.array([0.5, 0.25, 0.25]) / np.linalg.norm([0.5, 0.25, 0.25])
    np.testing.assert_allclose(moved, [expected], rtol=1e-6)
    np.testing.assert_allclose(move_queries(query_qd, passage_nd, np.array([[1]]), 1.0), query_qd)
    assert move_queries(query_qd, -query_qd, np.array([[0]]), 0.5) == pytest.approx(np.zeros((1, 3)))
