from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.cache import CachePair
from ragcun_cache.evaluation.metrics import score_run

QRELS = {
    "q5": {"p9": 2, "p1": 1, "gone": 2},
    "q2": {"p3": 1, "p4": 0},
    "q3": {"p3": 0},
    "unknown": {"p1": 1},
    "q7": {"gone": 1},
}


@pytest.fixture
def judged(tiny_pair: Callable[..., CachePair]) -> Judgements:
    return Judgements.of(QRELS, tiny_pair(dim=8))


def test_queries_with_a_vector_and_a_relevant_passage_by_id(judged: Judgements) -> None:
    assert judged.query_m.tolist() == [2, 5, 7]
    assert judged.start_m1.tolist() == [0, 1, 3, 3]
    assert judged.passage_j.tolist() == [3, 1, 9]
    assert judged.grade_j.tolist() == [1, 1, 2]
    assert judged.owner_j.tolist() == [0, 1, 1]


def test_the_ideal_counts_passages_that_are_not_in_the_corpus(judged: Judgements) -> None:
    run = {"q5": {"p9": 3.0, "p1": 2.0}}
    dcg = 2 / np.log2(2) + 1 / np.log2(3)
    assert dcg / judged.ideal_m[1] == pytest.approx(score_run(run, {"q5": QRELS["q5"]}).mean("ndcg@10"))


def test_taking_keeps_each_query_with_its_passages(judged: Judgements) -> None:
    taken = judged.take(np.array([2, 1, 0, 1]))
    assert taken.query_m.tolist() == [7, 5, 2, 5]
    assert taken.start_m1.tolist() == [0, 0, 2, 3, 5]
    assert taken.passage_j.tolist() == [1, 9, 3, 1, 9]
    assert judged.take(np.array([], int)).start_m1.tolist() == [0]


def test_shares_add_up_to_one(judged: Judgements) -> None:
    np.testing.assert_allclose(judged.share_j(), [1, 1 / 3, 2 / 3])
    np.testing.assert_allclose(judged.share_j(graded=False), [1, 1 / 2, 1 / 2])


def test_joining_and_hashing(judged: Judgements) -> None:
    parts = judged.take(np.array([0])).joined(judged.take(np.array([1, 2])))
    assert parts.sha256 == judged.sha256
    assert judged.take(np.array([1, 0, 2])).sha256 != judged.sha256


def test_drawing_keeps_the_order_and_takes_no_more_than_there_are(judged: Judgements) -> None:
    drawn = judged.drawn(2, seed=0)
    assert len(drawn) == 2 and set(drawn.query_m) < set(judged.query_m)
    assert judged.drawn(9, seed=0).sha256 == judged.sha256


def test_shuffling_gives_the_same_passages_to_other_queries(judged: Judgements) -> None:
    shuffled = [judged.shuffled(seed) for seed in range(20)]
    for one in shuffled:
        assert one.query_m.tolist() == judged.query_m.tolist()
        assert (np.diff(one.start_m1) != np.diff(judged.start_m1)).all(), "none keeps its own, whose numbers differ"
        assert sorted(one.passage_j) == sorted(judged.passage_j)
        assert sorted(one.ideal_m) == sorted(judged.ideal_m)
    assert len({one.sha256 for one in shuffled}) == 2, "both circles that three queries can stand in"
