"""Evaluation: search and metrics from cached vectors, beside beir's own exact search and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, take_turns
from ragcun_cache.cache import CachePair, open_pair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.errors import CacheError, CollectionError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_vectors
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.similarity import Similarity

TITLE = "Evaluating"
PACKAGES = ("numpy", "torch", "beir", "pytrec-eval-terrier")

_COLLECTIONS = ("scifact", "nfcorpus")
_DEFAULT_DEPTHS, _OUR_DEPTHS = [1, 3, 5, 10, 100, 1000], [10, 100]
# beir rounds its means to five digits.
_BEIR_ROUNDING = 0.6e-5


@dataclass(frozen=True)
class CachedModel:
    """What beir calls a model: returns vectors that are there already, by the id in place of a text."""

    query_qd: torch.Tensor
    passage_nd: torch.Tensor
    row_of_query: Mapping[str, int]
    row_of_passage: Mapping[str, int]

    def encode_queries(self, queries: Sequence[str], **_: Any) -> torch.Tensor:
        """Return the vectors of queries, whose texts are their ids."""
        return self.query_qd[[self.row_of_query[one] for one in queries]]

    def encode_corpus(self, corpus: Sequence[Mapping[str, str]], **_: Any) -> torch.Tensor:
        """Return the vectors of passages, whose titles are their ids."""
        return self.passage_nd[[self.row_of_passage[one["title"]] for one in corpus]]


@dataclass(frozen=True)
class Task:
    """One collection: what both sides are given, in memory."""

    collection: Collection
    pair: CachePair
    qrels: Qrels
    query_ids: list[str]
    query_qd: NDArray[np.float32]
    passage_nd: NDArray[np.float32]

    @classmethod
    def of(cls, name: str, setting: Setting) -> Task:
        """Open a collection and its vectors. Raises CollectionError or CacheError if they are not there."""
        collection = find_collection(name, setting.home, download=False)
        pair = open_pair(setting.home.caches, collection)
        qrels = collection.qrels(collection.test_split)
        query_ids = list(qrels)
        query_qd = pair.query.gather(pair.query.positions(query_ids))
        return cls(collection, pair, qrels, query_ids, query_qd, pair.passage.array())

    def ours(self) -> dict[str, float]:
        """Return the four metrics, by this package."""
        found = evaluate_vectors(
            self.query_qd,
            self.query_ids,
            self.passage_nd,
            self.pair.passage.ids,
            self.qrels,
            Similarity.COSINE,
            EvalConfig(),
        )
        return {metric: found.scores.mean(metric) for metric in found.scores.values}

    def beirs(self, depths: list[int]) -> dict[str, float]:
        """Return NDCG@10, MAP@100 and recall@100, by beir."""
        from beir.retrieval.evaluation import EvaluateRetrieval
        from beir.retrieval.search.dense import DenseRetrievalExactSearch

        model = CachedModel(
            torch.from_numpy(self.query_qd),
            torch.from_numpy(self.passage_nd),
            {one: row for row, one in enumerate(self.query_ids)},
            {one: row for row, one in enumerate(self.pair.passage.ids)},
        )
        search = DenseRetrievalExactSearch(model, show_progress_bar=False)
        judge = EvaluateRetrieval(search, k_values=depths, score_function="cos_sim")
        corpus = {one: {"title": one, "text": ""} for one in self.pair.passage.ids}
        run = judge.retrieve(corpus, {one: one for one in self.query_ids})
        ndcg, mean_ap, recall, _ = judge.evaluate(self.qrels, run, depths)
        return {"ndcg@10": ndcg["NDCG@10"], "map@100": mean_ap["MAP@100"], "recall@100": recall["Recall@100"]}

    def evaluate(self, setting: Setting) -> Result:
        """Return the stored result of the raw encoder, made anew: caches read, searched, scored, written."""
        pair = open_pair(setting.home.caches, self.collection, self.pair.encoder)
        subject = Subject.of(self.collection, pair, EvalConfig())
        store = ResultStore(setting.scratch / "results")
        head = raw_head(pair.passage.dim)
        result = subject.evaluate(head, lambda: encode_raw, store)
        store.run_path(result.key).unlink()
        return result


def run(setting: Setting, *, names: Sequence[str] = _COLLECTIONS) -> str:
    """Return the section: all collections one after the other, from vectors in memory and from the caches."""
    logging.getLogger("beir").setLevel(logging.WARNING)
    tasks = []
    for name in names:
        try:
            tasks.append(Task.of(name, setting))
        except (CollectionError, CacheError) as error:
            raise type(error)(error.problem, where=error.where, fix=f"ragcun-cache encode --dataset {name}") from None
    largest = max(
        abs(value - task.ours()[metric])
        for task in tasks
        for depths in (_OUR_DEPTHS, _DEFAULT_DEPTHS)
        for metric, value in task.beirs(depths).items()
    )
    if largest > _BEIR_ROUNDING:
        raise AssertionError(f"beir and this package differ by {largest}")
    took = take_turns(
        {
            "ragcun-cache": lambda: [task.ours() for task in tasks],
            "beir, depths 10 and 100": lambda: [task.beirs(_OUR_DEPTHS) for task in tasks],
            "beir, its default depths, 1 to 1000": lambda: [task.beirs(_DEFAULT_DEPTHS) for task in tasks],
        }
    )
    whole = take_turns({"whole": lambda: [task.evaluate(setting) for task in tasks]})["whole"]
    sizes = ", ".join(
        f"{task.collection.name} ({len(task.query_ids)} queries, {len(task.passage_nd):,} passages)" for task in tasks
    )
    about = (
        f"{sizes}; {tasks[0].passage_nd.shape[1]} dimensions, on the CPU, medians of {ROUNDS}. Both are given the same "
        "float32 vectors in memory and go from there to all metrics: beir by `DenseRetrievalExactSearch` and "
        f"`EvaluateRetrieval`, with a model that returns those vectors. The figures differ by at most {largest:.1e}; "
        "beir rounds its own to five digits."
    )
    ours = took["ragcun-cache"]
    return paragraphs(
        about,
        table(
            ["", "seconds", "time ÷ ragcun-cache"],
            [[name, timing.spread, timing.over(ours)] for name, timing in took.items()],
        ),
        f"From the caches on disk to stored results, imports aside: {whole.spread} s.",
    )
