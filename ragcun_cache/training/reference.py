"""What all heads that are trained on the same data are measured on, and what the raw vectors do there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.similarity import Similarity

if TYPE_CHECKING:
    from ragcun_cache.retrieval.run import Run
    from ragcun_cache.training.pairs import TrainingData

BATCH_PAIRS = 64
"""Pairs that a query's own passage is told apart among: a guess is right once in 64."""
TOP = 10
_BATCHES = 8
_GEOMETRY_ROWS = 2_048
_WATCHED_TRAIN_QUERIES = 512
_DEPTH = 100
_SEED = 0


@dataclass(frozen=True)
class Reference:
    """Rows that are drawn once, by a fixed seed, so that the figures of two heads differ by the heads alone.

    ``passage_n`` are at most 2,048 passages whose geometry is looked at. ``pair_p2`` (p, 2) are training pairs, rows of
    query and passage, in whole batches of 64 where there are so many. ``query_q`` are the rows of the queries that are
    searched with, ``query_ids`` their ids: the dev queries that have a vector, or at most 512 train queries where there
    is no dev query. ``raw_top`` are the ten best passages of each by the cosine of the raw vectors, ``raw_ndcg`` what
    raw scores on dev.
    """

    passage_n: NDArray[np.int64]
    pair_p2: NDArray[np.int64]
    query_q: NDArray[np.int64]
    query_ids: list[str]
    raw_top: list[list[str]]
    raw_ndcg: float | None


def make_reference(data: TrainingData) -> Reference:
    """Draw the rows and search once with the raw vectors."""
    rng = np.random.default_rng(_SEED)
    n_pairs = min(len(data.train_p2), BATCH_PAIRS * _BATCHES)
    if n_pairs > BATCH_PAIRS:
        n_pairs -= n_pairs % BATCH_PAIRS
    pair_p2 = data.train_p2[rng.permutation(len(data.train_p2))[:n_pairs]]
    passage_n = np.sort(rng.permutation(data.caches.passage.rows)[:_GEOMETRY_ROWS])
    if data.dev_qrels:
        # A judged query without a text has no row: it is not searched with, and scores 0.
        row_of = {query_id: row for row, query_id in enumerate(data.caches.query.ids)}
        query_q = np.array([row_of[query_id] for query_id in data.dev_qrels if query_id in row_of], dtype=np.int64)
    else:
        train_rows = np.unique(data.train_p2[:, 0])
        query_q = np.sort(rng.permutation(train_rows)[:_WATCHED_TRAIN_QUERIES])
    ids = data.caches.query.ids
    query_ids = [ids[row] for row in query_q]
    raw_run = search_watched(data, data.query_nd[query_q], query_ids, data.passage_nd, Similarity.COSINE)
    return Reference(passage_n, pair_p2, query_q, query_ids, top_lists(raw_run), dev_ndcg(data, raw_run))


def search_watched(
    data: TrainingData,
    query_qe: NDArray[np.floating],
    query_ids: list[str],
    passage_ne: NDArray[np.floating],
    similarity: Similarity,
) -> Run:
    """Search all passages of the cache: ten deep, or as deep as the score of dev queries asks for."""
    from ragcun_cache.retrieval.search import search

    return search(
        query_qe,
        query_ids,
        passage_ne,
        data.caches.passage.ids,
        similarity,
        _DEPTH if data.dev_qrels else TOP,
        drop_identical_ids=data.ignore_identical_ids,
    )


def dev_ndcg(data: TrainingData, run: Run) -> float | None:
    """Return NDCG@10 over the dev queries, 0 for one that has no vector; None where there is none."""
    from ragcun_cache.evaluation.metrics import score_run

    return score_run(run, data.dev_qrels).mean("ndcg@10") if data.dev_qrels else None


def top_lists(run: Run) -> list[list[str]]:
    """Return the ten best passages of every query that has one, in the order of the run."""
    return [list(islice(found, TOP)) for found in run.values() if found]
