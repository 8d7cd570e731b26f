from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcun_cache.collections.collection import open_collection
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.metrics import METRICS, score_run
from ragcun_cache.retrieval.run import drop_identical, rank_order

QUERY_IDS = [f"q{i}" for i in range(6)]
# Queries and passages share ids, so that self-matches come up.
PASSAGE_IDS = [*QUERY_IDS, *(f"p{i}" for i in range(24))]

qrels_strategy = st.dictionaries(
    st.sampled_from(QUERY_IDS),
    st.dictionaries(st.sampled_from(PASSAGE_IDS), st.integers(0, 3), min_size=1),
    min_size=1,
)
# Few distinct values, and pairs that differ only beyond float32: ties everywhere.
scores_strategy = st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.9000000001, -1.5, 2.0])
run_strategy = st.dictionaries(
    st.sampled_from(QUERY_IDS), st.dictionaries(st.sampled_from(PASSAGE_IDS), scores_strategy)
)
Qrels = dict[str, dict[str, int]]
Scores = dict[str, dict[str, float]]


def own_scores(scores: dict[str, float], grades: dict[str, int]) -> dict[str, float]:
    """Independent second opinion, straight from the definitions."""
    order = sorted(scores, key=lambda p: (np.float32(scores[p]), p), reverse=True)
    gains = [max(grades.get(p, 0), 0) for p in order]
    ideal = sorted((max(g, 0) for g in grades.values()), reverse=True)
    n_relevant = sum(g > 0 for g in grades.values())

    def dcg(values: list[int]) -> float:
        return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(values[:10]))

    hits = [rank for rank, gain in enumerate(gains[:100], 1) if gain > 0]
    return {
        "ndcg@10": dcg(gains) / dcg(ideal) if n_relevant else 0.0,
        "map@100": sum(i / rank for i, rank in enumerate(hits, 1)) / n_relevant if n_relevant else 0.0,
        "recall@100": len(hits) / n_relevant if n_relevant else 0.0,
        "mrr@10": 1 / hits[0] if hits and hits[0] <= 10 else 0.0,
    }


@given(run=run_strategy, qrels=qrels_strategy)
@settings(max_examples=300)
def test_agrees_with_the_definitions(run: Scores, qrels: Qrels) -> None:
    before = copy.deepcopy((run, qrels))
    scores = score_run(run, qrels)
    assert (run, qrels) == before
    assert scores.query_ids == list(qrels)
    for i, query_id in enumerate(scores.query_ids):
        for metric, value in own_scores(run.get(query_id, {}), qrels[query_id]).items():
            assert scores.values[metric][i] == pytest.approx(value, abs=1e-9)


@given(run=run_strategy, qrels=qrels_strategy)
@settings(max_examples=100)
def test_agrees_with_beir_where_every_judged_query_was_searched(run: Scores, qrels: Qrels) -> None:
    from beir.retrieval.evaluation import EvaluateRetrieval

    # beir divides by the queries it found, and its MRR takes ties in the order of the dict: give it both our way.
    k = max(map(len, run.values()), default=1)
    ordered = {
        query_id: rank_order(
            ((float(np.float32(score)), passage_id) for passage_id, score in run.get(query_id, {}).items()), k
        )
        for query_id in qrels
    }
    ours = score_run(drop_identical(ordered, k)[0], qrels)
    if any(not scores for scores in drop_identical(ordered, k)[0].values()):
        return
    theirs: dict[str, float] = {}
    for part in EvaluateRetrieval.evaluate(qrels, copy.deepcopy(ordered), [10, 100]):
        theirs |= part
    theirs |= EvaluateRetrieval.evaluate_custom(qrels, drop_identical(ordered, k)[0], [10], "mrr")
    names = {"ndcg@10": "NDCG@10", "map@100": "MAP@100", "recall@100": "Recall@100", "mrr@10": "MRR@10"}
    for metric, name in names.items():
        assert ours.mean(metric) == pytest.approx(theirs[name], abs=0.6e-5)  # beir rounds to five digits


def test_a_missing_query_counts_zero() -> None:
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    scores = score_run({"a": {"x": 1.0}, "b": {}}, qrels)
    assert scores.values["ndcg@10"].tolist() == [1.0, 0.0, 0.0]
    assert scores.mean("ndcg@10") == pytest.approx(1 / 3)


def test_a_query_without_a_relevant_passage_stays_in_the_mean() -> None:
    scores = score_run({"a": {"x": 1.0}, "b": {"y": 1.0}}, {"a": {"x": 1}, "b": {"y": 0}})
    assert scores.mean("ndcg@10") == 0.5


def test_queries_without_judgements_are_left_out() -> None:
    assert score_run({"a": {"x": 1.0}, "other": {"x": 1.0}}, {"a": {"x": 1}, "empty": {}}).query_ids == ["a"]


def test_the_ideal_dcg_counts_passages_that_are_not_in_the_corpus() -> None:
    scores = score_run({"a": {"x": 1.0}}, {"a": {"x": 1, "gone": 1}})
    assert scores.mean("ndcg@10") == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_gain_is_linear_in_the_grade() -> None:
    scores = score_run({"a": {"x": 2.0, "y": 1.0}}, {"a": {"x": 1, "y": 3}})
    assert scores.mean("ndcg@10") == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_ties_go_to_the_larger_id_and_are_ties_in_float32() -> None:
    qrels = {"a": {"y": 1}}
    assert score_run({"a": {"x": 0.9, "y": 0.9}}, qrels).mean("mrr@10") == 1.0
    assert score_run({"a": {"x": 0.9000000001, "y": 0.9}}, qrels).mean("mrr@10") == 1.0
    assert score_run({"a": {"x": 0.9001, "y": 0.9}}, qrels).mean("mrr@10") == 0.5


def test_mrr_ends_at_rank_ten() -> None:
    run = {"a": {f"p{i:02d}": float(-i) for i in range(20)}}
    assert score_run(run, {"a": {"p09": 1}}).mean("mrr@10") == 0.1
    assert score_run(run, {"a": {"p10": 1}}).mean("mrr@10") == 0.0


def test_figures_are_not_rounded() -> None:
    scores = score_run({"a": {"x": 2.0, "y": 1.0}}, {"a": {"y": 1}})
    assert scores.mean("ndcg@10") == pytest.approx(1 / math.log2(3), rel=1e-12)


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ({"a": {"x": 1.0}}, {}, "no query has a judgement"),
        ({"a": {"x": math.nan}}, {"a": {"x": 1}}, "query a"),
        ({"a": {"x": math.inf}}, {"a": {"x": 1}}, "not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(run: Any, qrels: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score_run(run, qrels)


def test_every_metric_is_there() -> None:
    assert tuple(score_run({"a": {"x": 1.0}}, {"a": {"x": 1}}).values) == METRICS


@pytest.mark.parametrize("name", ["scifact", "nfcorpus"])
def test_agrees_with_pytrec_eval_on_real_judgements(real_data: Callable[[str], Path], name: str) -> None:
    qrels = open_collection(real_data(name), name).qrels("test")
    rng = np.random.default_rng(0)
    passage_ids = sorted({passage_id for grades in qrels.values() for passage_id in grades})
    run = {}
    for query_id, grades in qrels.items():
        found = {*rng.choice(passage_ids, 100, replace=False).tolist(), *list(grades)[:3]}
        run[query_id] = {passage_id: float(rng.integers(0, 50)) for passage_id in found}
    judged = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map_cut.100", "recall.100"}).evaluate(run)
    scores = score_run(run, qrels)
    assert 0.01 < scores.mean("ndcg@10") < 0.99
    for metric, measure in {"ndcg@10": "ndcg_cut_10", "map@100": "map_cut_100", "recall@100": "recall_100"}.items():
        expected = [judged[query_id][measure] for query_id in scores.query_ids]
        assert scores.values[metric] == pytest.approx(expected, abs=1e-9)
