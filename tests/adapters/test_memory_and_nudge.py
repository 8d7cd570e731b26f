from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.nudge import Nudge, nudge_passages
from ragcun_cache.adapters.query_memory import QueryMemory

D = 6


def unit(n: int, seed: int) -> np.ndarray:
    rows_nd = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd


def judged() -> Judgements:
    """Query 0: passages 4 (grade 1) and 2 (grade 2); query 1: nothing in the corpus; query 2: passage 2."""
    passage, grade = np.array([2, 4, 2]), np.array([2, 1, 1], np.float32)
    return Judgements(np.array([5, 6, 7]), np.array([0, 2, 2, 3]), passage, grade, np.ones(3))


def test_memory_is_the_formula() -> None:
    train, query = unit(3, 0), unit(4, 1)
    memory = QueryMemory(train, judged(), 7, temperature=0.3, evidence=30.0)
    near = np.exp((query @ train.T - 1) / 0.3)
    density = np.zeros((4, 7))
    density[:, 2] = near[:, 0] * 2 / 2 + near[:, 2] * 1 / 1
    density[:, 4] = near[:, 0] * 1 / 2
    np.testing.assert_allclose(memory.density(query), density, rtol=1e-5)
    np.testing.assert_allclose(memory.scores(query), np.log1p(30 * density) / np.log1p(30), rtol=1e-5)


def test_memory_of_the_very_query_is_one() -> None:
    train = unit(3, 0)
    scores = QueryMemory(train, judged(), 7, temperature=0.01, evidence=100.0).scores(train)
    np.testing.assert_allclose(scores[[0, 2], 2], 1, atol=1e-4)
    assert scores[0, 4] == pytest.approx(np.log1p(50) / np.log1p(100), abs=1e-4)
    assert not scores[:, [0, 1, 3, 5, 6]].any()


def test_no_judgement_leaves_nothing_to_remember() -> None:
    empty = Judgements(np.empty(0, int), np.zeros(1, int), np.empty(0, int), np.empty(0, np.float32), np.empty(0))
    assert not QueryMemory(np.empty((0, D), np.float32), empty, 7, 0.1, 10.0).scores(unit(2, 0)).any()


@pytest.mark.parametrize("kind", list(Nudge))
def test_only_judged_passages_move_and_not_at_all_without_reach(kind: Nudge) -> None:
    passage = unit(7, 2)
    moved = nudge_passages(passage, unit(3, 0), judged(), 0.3, kind)
    assert np.flatnonzero(np.abs(moved - passage).max(axis=1) > 1e-6).tolist() == [2, 4]
    np.testing.assert_allclose(nudge_passages(passage, unit(3, 0), judged(), 0.0, kind), passage, atol=1e-6)


@given(st.floats(0.001, 3.9), st.integers(0, 50))
def test_nudge_n_is_the_best_unit_vector_within_reach(reach: float, seed: int) -> None:
    passage, query = unit(7, seed), unit(3, seed + 1)
    moved = nudge_passages(passage, query, judged(), reach, Nudge.N)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    assert (np.square(moved - passage).sum(axis=1) <= reach + 1e-4).all()
    goal = 2 * query[0] + query[2]
    others = passage[2] + np.random.default_rng(seed).normal(size=(500, D)) * np.sqrt(reach / D)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    allowed = others[np.square(others - passage[2]).sum(axis=1) <= reach]
    assert moved[2] @ goal >= max(allowed @ goal, default=-9.0) - 1e-4


def test_nudge_m_moves_by_its_reach() -> None:
    passage, query = unit(7, 2), unit(3, 0)
    goal = 2 * query[0] + query[2]
    expected = passage[2] + 0.3 * goal / np.linalg.norm(goal)
    moved = nudge_passages(passage, query, judged(), 0.3, Nudge.M)
    np.testing.assert_allclose(moved[2], expected / np.linalg.norm(expected), atol=1e-6)
