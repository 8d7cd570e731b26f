"""The whole path from vectors to figures beside the judges themselves: pytrec_eval and beir."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from numpy.typing import NDArray

from ragcun_cache.collections.collection import Collection, open_collection
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_run, evaluate_vectors
from ragcun_cache.similarity import Similarity

MEASURES = {"ndcg@10": "ndcg_cut_10", "map@100": "map_cut_100", "recall@100": "recall_100"}


def judge(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map_cut.100", "recall.100", "recip_rank"})
    scores: dict[str, dict[str, float]] = evaluator.evaluate(run)
    return scores


def test_a_thousand_random_runs_score_as_pytrec_eval_says() -> None:
    rng = np.random.default_rng(20)

    def draw(corpus: list[str], least: int, most: int) -> list[str]:
        n = int(rng.integers(least, min(most, len(corpus)) + 1))
        return [corpus[place] for place in rng.permutation(len(corpus))[:n]]

    seen = {"ties": 0, "missing": 0, "graded": 0, "self": 0, "deep": 0}
    for _ in range(1000):
        queries = [f"x{i}" for i in range(rng.integers(1, 8))]
        # Queries and passages share ids, so that self-matches come up.
        corpus = [f"x{i}" for i in range(rng.integers(2, 400))]
        graded = bool(rng.integers(2))
        qrels = {
            query: {one: int(rng.integers(0, 4 if graded else 2)) for one in draw(corpus, 1, 30)} for query in queries
        }
        searched = [query for query in queries if rng.uniform() < 0.85]
        levels = int(rng.choice([3, 50, 10**6]))
        run = {
            query: {one: float(rng.integers(-levels, levels)) / 7 for one in draw(corpus, 0, 120)} for query in searched
        }
        found = evaluate_run(run, searched, corpus, qrels, EvalConfig(k=max(map(len, run.values()), default=0) + 100))
        without_self = {
            query: {one: score for one, score in scores.items() if one != query} for query, scores in run.items()
        }
        judged = judge({query: scores for query, scores in without_self.items() if scores}, qrels)
        for metric, measure in MEASURES.items():
            expected = [judged.get(query, {}).get(measure, 0.0) for query in qrels]
            assert found.scores.values[metric] == pytest.approx(expected, abs=1e-9)
        ranks = [judged.get(query, {}).get("recip_rank", 0.0) for query in qrels]
        assert found.scores.values["mrr@10"] == pytest.approx([r if r >= 0.1 else 0.0 for r in ranks], abs=1e-9)
        assert found.counts.missing == len(queries) - len(searched)
        assert found.counts.identical_dropped == sum(query in scores for query, scores in run.items())
        seen["ties"] += any(len(set(scores.values())) < len(scores) for scores in run.values())
        seen["missing"] += len(searched) < len(queries)
        seen["graded"] += graded
        seen["self"] += found.counts.identical_dropped > 0
        seen["deep"] += any(len(scores) > 100 for scores in run.values())
    assert min(seen.values()) > 100, f"the draw leaves out what it is there for: {seen}"


@pytest.fixture
def reference(real_data: Callable[[str], Path]) -> Callable[..., Any]:
    """Reference vectors of a real collection: test queries and the whole corpus, with their ids."""

    def read(name: str) -> tuple[Collection, NDArray[np.float16], list[str], NDArray[np.float16], list[str]]:
        folder = real_data(name)
        vectors = folder.parent.parent / "embeddings" / name
        if not vectors.is_dir():
            pytest.skip(f"no reference vectors of {name} on this machine")
        collection = open_collection(folder, name)
        query_ids = list(collection.qrels("test"))
        row_of = {one: row for row, one in enumerate(json.loads((vectors / "queries.ids.json").read_text()))}
        query_qd = np.load(vectors / "queries.npy", allow_pickle=False)[[row_of[one] for one in query_ids]]
        passage_nd = np.load(vectors / "corpus.npy", allow_pickle=False)
        return collection, query_qd, query_ids, passage_nd, json.loads((vectors / "corpus.ids.json").read_text())

    return read


@pytest.mark.parametrize(("name", "published"), [("scifact", 0.6556), ("nfcorpus", 0.3332)])
def test_real_vectors_score_as_published_and_as_beir_and_pytrec_eval_say(
    reference: Callable[..., Any], name: str, published: float
) -> None:
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    collection, query_qd, query_ids, passage_nd, passage_ids = reference(name)
    qrels = collection.qrels("test")
    found = evaluate_vectors(query_qd, query_ids, passage_nd, passage_ids, qrels, Similarity.COSINE, EvalConfig())
    assert found.scores.mean("ndcg@10") == pytest.approx(published, abs=1e-4)
    judged = judge(found.run, qrels)
    for metric, measure in MEASURES.items():
        expected = [judged[query][measure] for query in found.scores.query_ids]
        assert found.scores.values[metric] == pytest.approx(expected, abs=1e-9)

    class Model:
        def encode_queries(self, queries: Sequence[str], **_: Any) -> Any:
            return torch.from_numpy(query_qd.astype(np.float32))

        def encode_corpus(self, corpus: Sequence[Mapping[str, str]], **_: Any) -> Any:
            rows = [row_of[one["title"]] for one in corpus]
            return torch.from_numpy(passage_nd[rows].astype(np.float32))

    import torch

    row_of = {one: row for row, one in enumerate(passage_ids)}
    retriever = EvaluateRetrieval(
        DenseRetrievalExactSearch(Model(), show_progress_bar=False), k_values=[10, 100], score_function="cos_sim"
    )
    corpus = {one: {"title": one, "text": ""} for one in passage_ids}
    theirs = retriever.retrieve(corpus, {one: one for one in query_ids})
    # beir's own scores are those of a float32 product; its run holds the same passages but for those that nearly tie.
    judged = judge(theirs, qrels)
    for metric, measure in MEASURES.items():
        mean = sum(one[measure] for one in judged.values()) / len(qrels)
        assert found.scores.mean(metric) == pytest.approx(mean, abs=1e-6)
    ndcg, mean_ap, recall, _ = retriever.evaluate(qrels, theirs, [10, 100])
    rounded = {"ndcg@10": ndcg["NDCG@10"], "map@100": mean_ap["MAP@100"], "recall@100": recall["Recall@100"]}
    for metric, value in rounded.items():
        assert found.scores.mean(metric) == pytest.approx(value, abs=0.6e-5)  # beir rounds to five digits
