"""How a head is doing between two epochs: retrieval on the dev queries, and the geometry of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.heads.config import Init
from ragcun_cache.role import Role
from ragcun_cache.training.pairs import TrainingData

if TYPE_CHECKING:
    from ragcun_cache.heads.head import Head

DEV_METRIC = "dev_ndcg@10"
_DEPTH = 100


def mean_cosine(outputs_ne: NDArray[np.float32]) -> float:
    """Return the mean cosine over all pairs of different rows of (n, e), n >= 2: near 1 when the outputs collapse.

    With unit rows u: ``(||sum u||^2 - n) / (n (n - 1))``. A zero row has the cosine 0 with every other.
    """
    norms_n = np.linalg.norm(outputs_ne, axis=1)
    units_ne = outputs_ne / np.where(norms_n > 0, norms_n, 1)[:, None]
    n = len(outputs_ne)
    total = float(np.square(units_ne.sum(axis=0, dtype=np.float64)).sum())
    return float((total - np.count_nonzero(norms_n)) / (n * (n - 1)))


def relative_residual(outputs_nd: NDArray[np.float32], inputs_nd: NDArray[np.float32]) -> float:
    """Return the mean over rows of ``||f(x) - x|| / ||x||``: how far a head has moved from the identity."""
    moved_n = np.linalg.norm(outputs_nd - inputs_nd, axis=1)
    return float(np.mean(moved_n / np.maximum(np.linalg.norm(inputs_nd, axis=1), np.finfo(np.float32).tiny)))


def measure_head(head: Head, data: TrainingData) -> dict[str, Any]:
    """Return the diagnostics of ``head`` as columns of the metrics table.

    ``dev_ndcg@10`` is over the dev queries against all ``dev_corpus_rows`` passages of the cache (a sample's figure is
    not comparable with a whole collection's), null without dev queries. ``output_std`` is over all entries of the
    encoded passages; ``relative_residual`` is null unless the head starts at the identity.
    """
    import torch

    from ragcun_cache.evaluation.metrics import score_run
    from ragcun_cache.heads.apply import encode_rows
    from ragcun_cache.retrieval.search import search

    passage_ne = encode_rows(head, torch.from_numpy(data.passage_nd), Role.PASSAGE)
    ndcg: float | None = None
    if data.dev_qrels:
        query_ids = list(data.dev_qrels)
        dev_qd = data.query_nd[data.caches.query.positions(query_ids)]
        run = search(
            encode_rows(head, torch.from_numpy(dev_qd), Role.QUERY),
            query_ids,
            passage_ne,
            data.caches.passage.ids,
            head.similarity,
            _DEPTH,
            drop_identical_ids=data.ignore_identical_ids,
        )
        ndcg = score_run(run, data.dev_qrels).mean("ndcg@10")
    near_raw = head.config.init == Init.IDENTITY
    return {
        DEV_METRIC: ndcg,
        "dev_queries": len(data.dev_qrels),
        "dev_corpus_rows": len(passage_ne),
        "output_std": float(passage_ne.std(dtype=np.float64)),
        "mean_cosine": mean_cosine(passage_ne) if len(passage_ne) > 1 else None,
        "relative_residual": relative_residual(passage_ne, data.passage_nd) if near_raw else None,
    }
