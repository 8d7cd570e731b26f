from __future__ import annotations

import numpy as np
import pytest

from ragcun_cache.adapters import closed_form
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.heads import apply_head
from ragcun_cache.heads.config import Side
from ragcun_cache.role import Role

D = 12


def rows(n: int, seed: int = 0) -> np.ndarray:
    rows_nd = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd


def moments_of(query: np.ndarray, passage: np.ndarray) -> closed_form.PairMoments:
    n = len(query)
    pairs = Judgements(np.arange(n), np.arange(n + 1), np.arange(n), np.ones(n, np.float32), np.ones(n))
    return closed_form.PairMoments.of(query, passage, pairs)


def test_moments_are_those_of_the_pairs() -> None:
    query, passage = rows(4), rows(6, 1)
    start, found = np.array([0, 2, 2, 5, 6]), np.array([3, 0, 1, 3, 5, 0])
    judged = Judgements(np.arange(4), start, found, np.ones(6, np.float32), np.ones(4))
    q, p = query[judged.owner_j].astype(np.float64), passage[found].astype(np.float64)
    moments = closed_form.PairMoments.of(query, passage, judged)
    assert moments.pairs == 6
    np.testing.assert_allclose(moments.query_d, q.mean(axis=0))
    np.testing.assert_allclose(moments.passage_d, p.mean(axis=0))
    for name, expected in (("qq_dd", q.T @ q), ("qp_dd", q.T @ p), ("pp_dd", p.T @ p)):
        np.testing.assert_allclose(getattr(moments, name), expected / 6, atol=1e-6)


def test_ridge_minimises_its_loss_and_tends_to_the_identity() -> None:
    query, passage = rows(50), rows(50, 1)

    def loss(weight: np.ndarray, strength: float) -> float:
        fit = ((query @ weight.T - passage) ** 2).sum() / 50
        return float(fit + strength * ((weight - np.eye(D)) ** 2).sum())

    found = closed_form.ridge_to_identity(moments_of(query, passage), 0.06)
    rng = np.random.default_rng(0)
    assert all(loss(found, 0.06) < loss(found + 0.01 * rng.normal(size=(D, D)), 0.06) for _ in range(20))
    np.testing.assert_allclose(closed_form.ridge_to_identity(moments_of(query, passage), 1e9), np.eye(D), atol=1e-6)


def test_procrustes_finds_a_rotation() -> None:
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0].astype(np.float32)
    query = rows(40)
    np.testing.assert_allclose(closed_form.procrustes(moments_of(query, query @ rotation.T)), rotation, atol=1e-5)


def test_within_pair_counts_least_what_differs_within_pairs() -> None:
    rng = np.random.default_rng(0)
    query = rows(400)
    noise = rng.normal(size=(400, D)) * np.array([5.0] + [1.0] * (D - 1))
    noisy = (query + noise).astype(np.float32)
    weight = closed_form.within_pair(moments_of(query, noisy), 0.1)
    covariance = np.cov(query.astype(np.float64) - noisy, rowvar=False, bias=True)
    expected = np.linalg.inv(covariance / (np.trace(covariance) / D) + 0.1 * np.eye(D)) * 1.1
    np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-4)
    assert weight[0, 0] < 0.3 * np.diag(weight)[1:].min()
    np.testing.assert_allclose(closed_form.within_pair(moments_of(query, noisy), 1e7), np.eye(D), atol=1e-3)


def test_whitening_by_powers() -> None:
    passage = rows(500) * np.linspace(1, 4, D, dtype=np.float32)

    def moments(weight: np.ndarray) -> np.ndarray:
        moved = passage @ weight.T
        found: np.ndarray = moved.T @ moved / len(moved)
        return found

    white = moments(closed_form.soft_zca(passage, 0.5))
    np.testing.assert_allclose(white / white[0, 0], np.eye(D), atol=1e-3)
    np.testing.assert_allclose(closed_form.soft_zca(passage, 0.0), np.eye(D), atol=1e-6)
    pca = closed_form.tempered_pca(passage, 5, 0.0)
    np.testing.assert_allclose(pca @ pca, pca, atol=1e-5)
    assert np.linalg.matrix_rank(pca, tol=1e-4) == 5
    tempered = np.linalg.eigvalsh(moments(closed_form.tempered_pca(passage, 5, 1.0)))
    np.testing.assert_allclose(tempered[-5:], 1, atol=1e-3)


@pytest.mark.parametrize("side", list(Side))
def test_a_linear_head_applies_the_map(side: Side) -> None:
    weight = np.random.default_rng(0).normal(size=(D, D)).astype(np.float32)
    head = closed_form.linear_head(weight, side)
    np.testing.assert_allclose(apply_head(head, rows(9), Role.QUERY), rows(9) @ weight.T, atol=1e-5)
    moved = rows(9) @ weight.T if side == Side.BOTH else rows(9)
    np.testing.assert_allclose(apply_head(head, rows(9), Role.PASSAGE), moved, atol=1e-5)
