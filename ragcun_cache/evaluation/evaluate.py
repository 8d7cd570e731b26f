"""One evaluation: a run in, per-query scores and the counts that a reader should know out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.metrics import QueryScores, judged_queries, score_run
from ragcun_cache.retrieval.run import Run, drop_identical, rank_order
from ragcun_cache.retrieval.search import search
from ragcun_cache.similarity import Similarity


@dataclass(frozen=True)
class Counts:
    """What lies behind a mean.

    ``judged`` queries are in the mean; ``missing`` of them were not searched for and score 0; ``without_relevant`` of
    them have only grades of 0 and score 0. ``absent_passages`` is the number of relevant (query, passage) judgements
    whose passage is not in the corpus; they stay in the ideal ranking. ``identical_dropped`` is the number of results
    left out because they carried their query's own id.
    """

    judged: int
    missing: int
    without_relevant: int
    absent_passages: int
    identical_dropped: int


@dataclass(frozen=True)
class Evaluation:
    """The run as it was scored, and the scores of every judged query.

    ``identical_kept`` is NDCG@10 had nothing been dropped; None if nothing was.
    """

    run: Run
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
    run = search(query_qe, query_ids, passage_ne, passage_ids, similarity, config.depth, drop_identical_ids=False)
    return evaluate_run(run, query_ids, passage_ids, qrels, config)


def evaluate_run(
    run: Run,
    query_ids: Collection[str],
    passage_ids: Collection[str],
    qrels: Mapping[str, Mapping[str, int]],
    config: EvalConfig,
) -> Evaluation:
    """Score a run of depth ``config.depth`` against ``qrels``, whoever made it.

    Its scores are rounded to float32 and its passages put in trec_eval's order before anything is dropped or cut.

    Args:
        run: query id -> passage id -> score, the larger the better.
        query_ids: what was searched for; judged queries that are not there score 0.
        passage_ids: the whole corpus.
        qrels: query id -> passage id -> grade.
        config: depth, and whether identical ids are dropped (True unless it says False, as in BEIR).

    Raises:
        EvaluationError: a passage of the run is not in the corpus, or see ``score_run``.

    """
    # One deeper, and dropped here, so that the dropped can be counted and the figure with them be known.
    kept = run if _is_ranked(run, config.depth) else _ranked(run, config.depth)
    if config.ignore_identical_ids is not False:
        ranked, n_dropped = drop_identical(kept, config.k)
    else:
        ranked, n_dropped = {query_id: dict(islice(scores.items(), config.k)) for query_id, scores in kept.items()}, 0
    judged = judged_queries(qrels)
    known_queries = set(query_ids)
    relevant = [passage for query in judged for passage, grade in qrels[query].items() if grade > 0]
    found = {passage_id for scores in kept.values() for passage_id in scores}
    # The corpus is only walked through: a set of millions of ids would take more memory than their search.
    known_passages = found.union(relevant).intersection(passage_ids)
    if unknown := sorted(found - known_passages):
        raise EvaluationError(
            f"{len(unknown)} passages of the run are not in the corpus",
            expected="passages of the collection",
            found=", ".join(map(repr, unknown[:3])),
        )
    counts = Counts(
        judged=len(judged),
        missing=sum(query_id not in known_queries for query_id in judged),
        without_relevant=sum(not any(grade > 0 for grade in qrels[query_id].values()) for query_id in judged),
        absent_passages=sum(passage_id not in known_passages for passage_id in relevant),
        identical_dropped=n_dropped,
    )
    identical_kept = score_run(kept, qrels).mean("ndcg@10") if n_dropped else None
    return Evaluation(ranked, score_run(ranked, qrels), counts, identical_kept)


def _is_ranked(run: Run, depth: int) -> bool:
    """Return whether the run is as this package's search leaves it, so that nothing need be sorted again."""
    sizes = [len(scores) for scores in run.values()]
    score_p = np.fromiter(chain.from_iterable(scores.values() for scores in run.values()), np.float64, sum(sizes))
    if max(sizes, default=0) > depth or not (score_p.astype(np.float32) == score_p).all():
        return False
    query_p = np.repeat(np.arange(len(sizes)), sizes)
    unsettled = (score_p[1:] >= score_p[:-1]) & (query_p[1:] == query_p[:-1])
    passage_ids = list(chain.from_iterable(run.values())) if unsettled.any() else []
    return all(
        score_p[place] == score_p[place + 1] and passage_ids[place] > passage_ids[place + 1]
        for place in np.flatnonzero(unsettled).tolist()
    )


def _ranked(run: Run, depth: int) -> Run:
    return {
        query_id: rank_order(
            zip(np.array(list(scores.values())).astype(np.float32).tolist(), scores, strict=True), depth
        )
        for query_id, scores in run.items()
    }
