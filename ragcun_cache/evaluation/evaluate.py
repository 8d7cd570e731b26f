"""One evaluation: vectors in, per-query scores and the counts that a reader should know out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.metrics import QueryScores, judged_queries, score_run
from ragcun_cache.retrieval.run import drop_identical
from ragcun_cache.retrieval.search import search
from ragcun_cache.similarity import Similarity


@dataclass(frozen=True)
class Counts:
    """What lies behind a mean.

    ``judged`` queries are in the mean; ``missing`` of them have no vector and score 0; ``without_relevant`` of them
    have only grades of 0 and score 0. ``absent_passages`` is the number of relevant (query, passage) judgements whose
    passage is not in the corpus; they stay in the ideal ranking. ``identical_dropped`` is the number of results left
    out because they carried their query's own id.
    """

    judged: int
    missing: int
    without_relevant: int
    absent_passages: int
    identical_dropped: int


@dataclass(frozen=True)
class Evaluation:
    """Scores of every judged query. ``identical_kept`` is NDCG@10 had nothing been dropped; None if nothing was."""

    scores: QueryScores
    counts: Counts
    identical_kept: float | None


def evaluate_vectors(
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    passage_ne: NDArray[np.floating],
    passage_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    similarity: Similarity,
    config: EvalConfig,
) -> Evaluation:
    """Search all passages with the given queries, and score the run against ``qrels``.

    Args:
        query_qe: (q, e) vectors of the queries in ``query_ids``; judged queries that are not there score 0.
        query_ids: q ids.
        passage_ne: (n, e) vectors of the whole corpus.
        passage_ids: n ids.
        qrels: query id -> passage id -> grade.
        similarity: as the head says.
        config: depth, index, and whether identical ids are dropped (True unless it says False, as in BEIR).

    Raises:
        EvaluationError: see ``search`` and ``score_run``.

    """
    # One deeper, and dropped here, so that the dropped can be counted and the figure with them be known.
    kept = search(query_qe, query_ids, passage_ne, passage_ids, similarity, config.k + 1, drop_identical_ids=False)
    run, n_dropped = kept, 0
    if config.ignore_identical_ids is not False:
        run, n_dropped = drop_identical(kept, config.k)
    judged = judged_queries(qrels)
    known_queries, known_passages = set(query_ids), set(passage_ids)
    counts = Counts(
        judged=len(judged),
        missing=sum(query_id not in known_queries for query_id in judged),
        without_relevant=sum(not any(grade > 0 for grade in qrels[query_id].values()) for query_id in judged),
        absent_passages=sum(
            grade > 0 and passage_id not in known_passages
            for query_id in judged
            for passage_id, grade in qrels[query_id].items()
        ),
        identical_dropped=n_dropped,
    )
    identical_kept = score_run(kept, qrels).mean("ndcg@10") if n_dropped else None
    return Evaluation(score_run(run, qrels), counts, identical_kept)
