from __future__ import annotations

import numpy as np
import pytest

from ragcun_cache.adapters import closed_form
from ragcun_cache.heads import apply_head
from ragcun_cache.heads.config import Side
from ragcun_cache.role import Role

D = 12


def rows(n: int, seed: int = 0) -> np.ndarray:
    rows_nd = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd


def test_ridge_minimises_its_loss_and_tends_to_the_identity() -> None:
    query, passage = rows(50), rows(50, 1)

    def loss(weight: np.ndarray, strength: float) -> float:
        return float(((query @ weight.T - passage) ** 2).sum() + strength * ((weight - np.eye(D)) ** 2).sum())

    found = closed_form.ridge_to_identity(query, passage, 3.0)
    rng = np.random.default_rng(0)
    assert all(loss(found, 3.0) < loss(found + 0.01 * rng.normal(size=(D, D)), 3.0) for _ in range(20))
    np.testing.assert_allclose(closed_form.ridge_to_identity(query, passage, 1e9), np.eye(D), atol=1e-6)


def test_procrustes_finds_a_rotation() -> None:
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0].astype(np.float32)
    query = rows(40)
    np.testing.assert_allclose(closed_form.procrustes(query, query @ rotation.T), rotation, atol=1e-5)


def test_within_pair_counts_least_what_differs_within_pairs() -> None:
    rng = np.random.default_rng(0)
    query = rows(400)
    noise = rng.normal(size=(400, D)) * np.array([5.0] + [1.0] * (D - 1))
    weight = closed_form.within_pair(query, (query + noise).astype(np.float32), 0.1)
    assert weight[0, 0] < 0.3 * np.diag(weight)[1:].min()
    np.testing.assert_allclose(closed_form.within_pair(query, rows(400, 1), 1e7), np.eye(D), atol=1e-3)


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
