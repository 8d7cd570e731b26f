"""How a head is doing between two epochs: retrieval on the dev queries, and the geometry of its outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.diagnostics.geometry import (
    effective_rank,
    iso_score,
    mean_cosine,
    mean_norm,
    sigreg_statistic,
    singular_values,
    standard_deviation,
    uniformity,
)
from ragcun_cache.diagnostics.neighbours import anti_hub_share, mean_overlap, occurrence_counts, skewness
from ragcun_cache.diagnostics.pairs import alignment, in_batch_accuracy, query_passage_gap
from ragcun_cache.diagnostics.residual import relative_residual
from ragcun_cache.heads.config import Init
from ragcun_cache.role import Role
from ragcun_cache.training.pairs import TrainingData
from ragcun_cache.training.reference import BATCH_PAIRS, dev_ndcg, search_watched, top_lists

if TYPE_CHECKING:
    from ragcun_cache.heads.head import Head

DEV_METRIC = "dev_ndcg@10"
RAW_DEV_METRIC = "raw_dev_ndcg@10"


def measure_head(head: Head, data: TrainingData) -> dict[str, Any]:
    """Return the diagnostics of ``head`` as columns of the metrics table: numbers, null where one is not defined.

    ``dev_ndcg@10`` is over the dev queries against all ``dev_corpus_rows`` passages of the cache (a sample's figure is
    not comparable with a whole collection's), null without dev queries. ``output_std``, ``mean_norm``, ``mean_cosine``
    and ``relative_residual`` (null unless the head starts at the identity) are over all encoded passages; the other
    figures over the rows that ``data.reference`` drew. docs/diagnostics.md has a line for each.
    """
    reference = data.reference
    passage_ne = _encoded(head, data.passage_nd, Role.PASSAGE)
    query_qe = _encoded(head, data.query_nd[reference.query_q], Role.QUERY)
    sample_ne = passage_ne[reference.passage_n]
    several = len(sample_ne) > 1
    run = search_watched(data, query_qe, reference.query_ids, passage_ne, head.similarity)
    near_raw = head.config.init == Init.IDENTITY
    measured = {
        DEV_METRIC: dev_ndcg(data, run),
        RAW_DEV_METRIC: reference.raw_ndcg,
        "dev_queries": len(data.dev_qrels),
        "dev_corpus_rows": len(passage_ne),
        **_neighbours(top_lists(run), reference.raw_top, len(passage_ne)),
        **_pairs(head, data, passage_ne),
        "query_passage_gap": query_passage_gap(query_qe, sample_ne) if len(query_qe) else None,
        "output_std": standard_deviation(passage_ne),
        "mean_norm": mean_norm(passage_ne),
        "mean_cosine": mean_cosine(passage_ne) if len(passage_ne) > 1 else None,
        "uniformity": uniformity(sample_ne) if several else None,
        **_spectrum(sample_ne),
        "sigreg": sigreg_statistic(sample_ne) if several else None,
        "relative_residual": relative_residual(passage_ne, data.passage_nd) if near_raw else None,
    }
    return {name: value if value is None or math.isfinite(value) else None for name, value in measured.items()}


def _encoded(head: Head, vectors_nd: NDArray[np.floating], role: Role) -> NDArray[np.float32]:
    import torch

    from ragcun_cache.heads.apply import encode_rows

    return encode_rows(head, torch.from_numpy(vectors_nd), role)


def _neighbours(tops: list[list[str]], raw_tops: list[list[str]], n_passages: int) -> dict[str, float | None]:
    counts_n = occurrence_counts(tops, n_passages)
    return {
        "top10_overlap": mean_overlap(tops, raw_tops) if tops else None,
        "hubness_skewness": skewness(counts_n) if tops else None,
        "anti_hub_share": anti_hub_share(counts_n) if tops else None,
    }


def _pairs(head: Head, data: TrainingData, passage_ne: NDArray[np.float32]) -> dict[str, float | None]:
    pair_p2 = data.reference.pair_p2
    if not len(pair_p2):
        return dict.fromkeys(("in_batch_accuracy", "in_batch_chance", "alignment"))
    query_pe = _encoded(head, data.query_nd[pair_p2[:, 0]], Role.QUERY)
    passage_pe = passage_ne[pair_p2[:, 1]]
    accuracy, chance = in_batch_accuracy(query_pe, passage_pe, pair_p2, head.similarity, BATCH_PAIRS)
    return {
        "in_batch_accuracy": accuracy,
        "in_batch_chance": chance,
        "alignment": alignment(query_pe, passage_pe),
    }


def _spectrum(sample_ne: NDArray[np.float32]) -> dict[str, float | None]:
    singular_e = singular_values(sample_ne)
    return {
        "effective_rank": effective_rank(singular_e),
        "rank_limit": float(min(len(sample_ne) - 1, sample_ne.shape[1])),
        "iso_score": iso_score(singular_e, sample_ne.shape[1]),
    }
