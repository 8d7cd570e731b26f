"""Linear maps in closed form, (d, d) float32 each, to be applied as ``W x``; ``linear_head`` makes heads of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.heads.config import ADAPTER, AdapterShape, HeadConfig, Init, Side
from ragcun_cache.similarity import Similarity

if TYPE_CHECKING:
    from ragcun_cache.heads.adapter import AdapterHead


def ridge_to_identity(
    query_pd: NDArray[np.float32], passage_pd: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Return the W that minimises ``sum_i |W q_i - p_i|^2 + strength |W - I|_F^2`` over judged pairs (p, d).

    ``W = (P^T Q + strength I) (Q^T Q + strength I)^-1`` (Hoerl and Kennard 1970, shrunk to I in place of 0).
    """
    dim = query_pd.shape[1]
    query, passage = query_pd.astype(np.float64), passage_pd.astype(np.float64)
    shrunk = strength * np.eye(dim)
    transposed: NDArray[np.floating] = np.linalg.solve(query.T @ query + shrunk, query.T @ passage + shrunk)
    return transposed.T.astype(np.float32)


def procrustes(query_pd: NDArray[np.float32], passage_pd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rotation W that minimises ``sum_i |W q_i - p_i|^2``: ``V U^T`` of ``Q^T P`` (Schoenemann 1966)."""
    left, _, right = np.linalg.svd(query_pd.astype(np.float64).T @ passage_pd.astype(np.float64))
    rotation: NDArray[np.float32] = (left @ right).T.astype(np.float32)
    return rotation


def within_pair(
    query_pd: NDArray[np.float32], passage_pd: NDArray[np.float32], shrinkage: float
) -> NDArray[np.float32]:
    """Return ``(S + shrinkage t I)^-1``, times t so that it tends to I, of the covariance S of ``q_i - p_i``.

    t is the mean variance. On queries alone, ``(W q) . p`` then is the product in the metric that counts least what
    differs within pairs: within-class covariance normalisation (Hatch et al., Interspeech 2006).
    """
    difference = query_pd.astype(np.float64) - passage_pd.astype(np.float64)
    covariance = np.cov(difference, rowvar=False)
    mean = np.trace(covariance) / len(covariance)
    ridged = covariance / mean + shrinkage * np.eye(len(covariance))
    return np.asarray(np.linalg.inv(ridged) * (1 + shrinkage), dtype=np.float32)


def soft_zca(passage_nd: NDArray[np.float32], exponent: float) -> NDArray[np.float32]:
    """Return ``U L^-exponent U^T`` of the second moments ``U L U^T`` of all passages, scaled to a mean power of 1.

    0.5 is full whitening, 0 is I. Without centring: the mean of a corpus is part of what queries are compared by.
    A power in place of the ridge that gives soft-ZCA its name (arXiv 2411.17538): one parameter, free of scale.
    """
    values, vectors = _spectrum(passage_nd)
    power = values**-exponent
    return np.asarray((vectors * (power / power.mean())) @ vectors.T, dtype=np.float32)


def tempered_pca(passage_nd: NDArray[np.float32], rank: int, temper: float) -> NDArray[np.float32]:
    """Return the map to the ``rank`` leading directions of the passages, each by its variance to ``-temper / 2``.

    Spectral tempering (arXiv 2603.19339) on second moments; 0 is plain PCA, 1 whitens what is kept. (d, d), of rank
    ``rank``.
    """
    values, vectors = _spectrum(passage_nd)
    kept = vectors[:, -rank:]
    return np.asarray((kept * values[-rank:] ** (-temper / 2)) @ kept.T, dtype=np.float32)


def _spectrum(passage_nd: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues (d,), ascending, none below 1e-6 of the largest, and eigenvectors (d, d) in columns."""
    rows = passage_nd.astype(np.float64)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return np.maximum(values, values[-1] * 1e-6), vectors


def linear_head(weight_dd: NDArray[np.float32], side: Side) -> AdapterHead:
    """Return the adapter that applies ``W x`` to queries, or to both sides."""
    import torch

    from ragcun_cache.heads.adapter import AdapterHead, LinearMap

    dim = len(weight_dd)
    config = HeadConfig(
        arch=ADAPTER,
        in_dim=dim,
        out_dim=dim,
        similarity=Similarity.COSINE,
        init=Init.IDENTITY,
        dropout=0.0,
        adapter=AdapterShape(side=side),
    )
    head = AdapterHead(config)
    assert isinstance(head.map, LinearMap)
    with torch.no_grad():
        head.map.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight_dd)))
    return head.eval().requires_grad_(False)
