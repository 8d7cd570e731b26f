"""Linear maps in closed form, (d, d) float32 each, to be applied as ``W x``; ``linear_head`` makes heads of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.heads.config import ADAPTER, AdapterShape, HeadConfig, Init, Side
from ragcun_cache.similarity import Similarity

if TYPE_CHECKING:
    from ragcun_cache.heads.adapter import AdapterHead


@dataclass(frozen=True)
class PairMoments:
    """Moments of judged pairs (q, p), all that the maps of queries are made from; float64.

    ``pairs`` is their number; ``query_d`` and ``passage_d`` (d,) are means, ``qq``, ``qp`` and ``pp`` (d, d) means of
    products of columns.
    """

    pairs: int
    query_d: NDArray[np.float64]
    passage_d: NDArray[np.float64]
    qq_dd: NDArray[np.float64]
    qp_dd: NDArray[np.float64]
    pp_dd: NDArray[np.float64]

    @classmethod
    def of(cls, query_md: NDArray[np.float32], passage_nd: NDArray[np.float32], judgements: Judgements) -> PairMoments:
        """Take the moments of all judgements of the queries ``query_md`` (m, d), each once whatever its grade."""
        import torch

        pairs = max(len(judgements.passage_j), 1)
        count_m = np.diff(judgements.start_m1)
        count_n = np.bincount(judgements.passage_j, minlength=len(passage_nd))
        sum_md = torch.zeros(query_md.shape).index_add_(
            0,
            torch.from_numpy(judgements.owner_j),
            torch.from_numpy(passage_nd)[torch.from_numpy(judgements.passage_j)],
        )
        query, passage = query_md.astype(np.float64), passage_nd.astype(np.float64)
        return cls(
            pairs,
            count_m @ query / pairs,
            count_n @ passage / pairs,
            (query.T * count_m) @ query / pairs,
            query.T @ sum_md.numpy() / pairs,
            (passage.T * count_n) @ passage / pairs,
        )


def ridge_to_identity(moments: PairMoments, strength: float) -> NDArray[np.float32]:
    """Return the W that minimises ``mean_i |W q_i - p_i|^2 + strength |W - I|_F^2`` over judged pairs.

    ``W = (P^T Q + strength I) (Q^T Q + strength I)^-1`` of the moments (Hoerl and Kennard 1970, shrunk to I, not 0).
    """
    shrunk = strength * np.eye(len(moments.qq_dd))
    return np.asarray(np.linalg.solve(moments.qq_dd + shrunk, moments.qp_dd + shrunk).T, dtype=np.float32)


def procrustes(moments: PairMoments) -> NDArray[np.float32]:
    """Return the rotation W that minimises ``mean_i |W q_i - p_i|^2``: ``V U^T`` of ``Q^T P`` (Schoenemann 1966)."""
    left, _, right = np.linalg.svd(moments.qp_dd)
    return np.asarray((left @ right).T, dtype=np.float32)


def within_pair(moments: PairMoments, shrinkage: float) -> NDArray[np.float32]:
    """Return ``(S / t + shrinkage I)^-1 (1 + shrinkage)`` of the covariance S of ``q - p``, with t its mean variance.

    It tends to I. On queries alone, ``(W q) . p`` then is the product in the metric that counts least what differs
    within pairs: within-class covariance normalisation (Hatch et al., Interspeech 2006).
    """
    mean_d = moments.query_d - moments.passage_d
    covariance_dd = moments.qq_dd - moments.qp_dd - moments.qp_dd.T + moments.pp_dd - np.outer(mean_d, mean_d)
    ridged_dd = covariance_dd / (np.trace(covariance_dd) / len(covariance_dd)) + shrinkage * np.eye(len(covariance_dd))
    return np.asarray(np.linalg.inv(ridged_dd) * (1 + shrinkage), dtype=np.float32)


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
