from __future__ import annotations

import numpy as np
import pytest
from torch import from_numpy, nn

from ragcun_cache.diagnostics.pairs import alignment, in_batch_accuracy, query_passage_gap
from ragcun_cache.similarity import Similarity

RNG = np.random.default_rng(0)


def pairs(n: int, e: int = 16, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    passage_pe = RNG.normal(size=(n, e)).astype(np.float32)
    query_pe = (passage_pe + noise * RNG.normal(size=(n, e))).astype(np.float32)
    return query_pe, passage_pe, np.stack([np.arange(n), np.arange(n)], axis=1)


def test_alignment() -> None:
    query_pe = np.array([[2, 0], [0, 5], [3, 0]], np.float32)
    assert alignment(query_pe, query_pe * 7) == pytest.approx(0.0)
    assert alignment(query_pe, query_pe[[1, 0, 2]]) == pytest.approx(4 / 3)
    assert alignment(query_pe, -query_pe) == pytest.approx(4.0)


def test_gap_of_two_clouds() -> None:
    query_ne = np.array([[2, 0], [4, 0]], np.float32)
    passage_me = np.array([[0, 1], [0, 9], [0, 3]], np.float32)
    assert query_passage_gap(query_ne, passage_me) == pytest.approx(2**0.5)
    assert query_passage_gap(query_ne, query_ne[:1]) == 0.0


@pytest.mark.parametrize("similarity", list(Similarity))
def test_accuracy_is_that_of_a_loop_in_torch(similarity: Similarity) -> None:
    query_pe, passage_pe, pair_p2 = pairs(96, noise=2.0)
    right = []
    for row in range(96):
        first = row // 32 * 32
        query, batch = from_numpy(query_pe[row : row + 1]), from_numpy(passage_pe[first : first + 32])
        if similarity is Similarity.L2:
            scores = -(query - batch).norm(dim=1)
        elif similarity is Similarity.COSINE:
            scores = nn.functional.cosine_similarity(query, batch)
        else:
            scores = batch @ query[0]
        right.append(scores.argmax().item() == row - first)
    accuracy, chance = in_batch_accuracy(query_pe, passage_pe, pair_p2, similarity, 32)
    assert accuracy == pytest.approx(np.mean(right))
    assert 0.1 < accuracy < 0.95
    assert chance == pytest.approx(1 / 32)


@pytest.mark.parametrize("similarity", list(Similarity))
def test_equal_outputs_are_right_as_often_as_a_guess(similarity: Similarity) -> None:
    constant_pe = np.full((128, 16), 0.3, np.float32)
    _, _, pair_p2 = pairs(128)
    assert in_batch_accuracy(constant_pe, constant_pe, pair_p2, similarity, 64) == pytest.approx((1 / 64, 1 / 64))


def test_random_outputs_are_near_chance() -> None:
    query_pe, _, pair_p2 = pairs(512)
    accuracy, chance = in_batch_accuracy(query_pe, query_pe[RNG.permutation(512)], pair_p2, Similarity.COSINE, 64)
    assert accuracy < 3 * chance


def test_the_same_query_or_passage_is_no_rival() -> None:
    query_pe = np.eye(2, dtype=np.float32)[[0, 0, 1]]
    # The first query has two passages of its own, and the second of them lies nearer.
    passage_pe = np.array([[0.5, 0], [1, 0], [0, 1]], np.float32)
    pair_p2 = np.array([[0, 0], [0, 1], [1, 2]])
    accuracy, chance = in_batch_accuracy(query_pe, passage_pe, pair_p2, Similarity.DOT, 64)
    assert accuracy == 1.0
    assert chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
