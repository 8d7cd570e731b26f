"""How the outputs for queries lie to those for the passages that they were judged with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.diagnostics.geometry import unit_rows
from ragcun_cache.similarity import Similarity


def alignment(query_pe: NDArray[np.float32], passage_pe: NDArray[np.float32]) -> float:
    """Return the mean of ``||u_q - u_p||^2`` over judged pairs of unit rows, both (p, e): 0 when they are one, 2 apart.

    Source: Wang and Isola, ICML 2020, arXiv 2005.10242, with alpha = 2.
    """
    apart_pe = unit_rows(query_pe) - unit_rows(passage_pe)
    return float(np.square(apart_pe, dtype=np.float64).sum(axis=1).mean())


def query_passage_gap(query_ne: NDArray[np.float32], passage_me: NDArray[np.float32]) -> float:
    """Return ``||mean u_q - mean u_p||`` of the unit rows of queries (n, e) and passages (m, e).

    Queries and passages in one cloud have none; in two clouds, the distance of those (the "modality gap" of Liang et
    al., NeurIPS 2022, arXiv 2203.02053).
    """
    means = [unit_rows(rows).mean(axis=0, dtype=np.float64) for rows in (query_ne, passage_me)]
    return float(np.linalg.norm(means[0] - means[1]))


def in_batch_accuracy(
    query_pe: NDArray[np.float32],
    passage_pe: NDArray[np.float32],
    pair_p2: NDArray[np.int64],
    similarity: Similarity,
    batch_rows: int,
) -> tuple[float, float]:
    """Return how often a query's own passage is the best of its batch, and how often a guess would be.

    Pairs (p, e) are taken in batches of ``batch_rows``, as InfoNCE with negatives from the batch would (arXiv
    1807.03748). ``pair_p2`` (p, 2) says which query and which passage a row is: the same query or passage again is no
    rival. Passages that share the best score share the hit, so outputs that are all equal do as well as a guess.
    """
    hits: list[NDArray[np.float64]] = []
    guesses: list[NDArray[np.float64]] = []
    for first in range(0, len(pair_p2), batch_rows):
        batch = slice(first, first + batch_rows)
        score_bb = _scores(query_pe[batch], passage_pe[batch], similarity)
        query_b, passage_b = pair_p2[batch].T
        rival_bb = (query_b[:, None] != query_b) & (passage_b[:, None] != passage_b)
        own_b = score_bb.diagonal()[:, None]
        beaten_b = (rival_bb & (score_bb > own_b)).any(axis=1)
        tied_b = (rival_bb & (score_bb == own_b)).sum(axis=1)
        hits.append(np.where(beaten_b, 0.0, 1 / (1 + tied_b)))
        guesses.append(1 / (1 + rival_bb.sum(axis=1)))
    return float(np.concatenate(hits).mean()), float(np.concatenate(guesses).mean())


def _scores(
    query_be: NDArray[np.float32], passage_be: NDArray[np.float32], similarity: Similarity
) -> NDArray[np.float64]:
    if similarity is Similarity.COSINE:
        query_be, passage_be = unit_rows(query_be), unit_rows(passage_be)
    dot_bb: NDArray[np.float64] = query_be.astype(np.float64) @ passage_be.astype(np.float64).T
    if similarity is Similarity.L2:
        # A query's own norm is the same for all of its passages.
        dot_bb = 2 * dot_bb - np.square(passage_be, dtype=np.float64).sum(axis=1)
    return dot_bb
