"""The four metrics, per query, with pytrec_eval as the judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import EvaluationError

METRICS = ("ndcg@10", "map@100", "recall@100", "mrr@10")
"""Names of the metrics, headline first. The run must reach depth 100 for them to mean what they say."""


@dataclass(frozen=True)
class QueryScores:
    """Scores of each judged query: ``values[metric][i]`` in [0, 1] belongs to ``query_ids[i]``, at full precision."""

    query_ids: list[str]
    values: dict[str, NDArray[np.float64]]

    def mean(self, metric: str) -> float:
        """Return the mean of ``metric`` over all judged queries."""
        return float(self.values[metric].mean())


def judged_queries(qrels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the ids of the queries that have a judgement, relevant or not, in the order of ``qrels``."""
    return [query_id for query_id, grades in qrels.items() if grades]


def score_run(run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]) -> QueryScores:
    """Score ``run`` against ``qrels`` with trec_eval's measures; neither is changed.

    * ``ndcg@10``: linear gain (the grade), discount log2(rank + 1), ideal DCG from all of a query's qrels, whether
      or not the passages are in the corpus (trec_eval ``ndcg_cut_10``);
    * ``map@100``: average precision over the top 100, divided by all relevant passages (``map_cut_100``);
    * ``recall@100``: share of the relevant passages (grade > 0) in the top 100 (``recall_100``);
    * ``mrr@10``: one over the rank of the first relevant passage, 0 beyond rank 10 (BEIR's MRR@10).

    Every judged query counts: one that is missing in the run, or has no relevant passage, scores 0. Queries that
    have no judgement are left out. Ties are broken as in trec_eval: float32 score, then passage id, descending.

    Raises:
        EvaluationError: no query is judged, or a score is not finite.

    """
    import pytrec_eval

    query_ids = judged_queries(qrels)
    if not query_ids:
        raise EvaluationError("no query has a judgement", expected="qrels of at least one query", found="none")
    judged_run = {query_id: run[query_id] for query_id in query_ids if run.get(query_id)}
    for query_id, scores in judged_run.items():
        if not all(map(math.isfinite, scores.values())):
            raise EvaluationError("a score in the run is not finite", where=f"query {query_id}")
    measures = {"ndcg_cut.10", "map_cut.100", "recall.100", "recip_rank"}
    judge = pytrec_eval.RelevanceEvaluator({query_id: dict(qrels[query_id]) for query_id in query_ids}, measures)
    by_query: dict[str, dict[str, float]] = judge.evaluate(judged_run)

    def column(measure: str) -> NDArray[np.float64]:
        return np.array([by_query.get(query_id, {}).get(measure, 0.0) for query_id in query_ids], dtype=np.float64)

    reciprocal_rank = column("recip_rank")
    return QueryScores(
        query_ids,
        {
            "ndcg@10": column("ndcg_cut_10"),
            "map@100": column("map_cut_100"),
            "recall@100": column("recall_100"),
            "mrr@10": np.where(reciprocal_rank >= 1 / 10, reciprocal_rank, 0.0),
        },
    )
