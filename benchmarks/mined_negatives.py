"""What mined hard negatives cost in retrieval, where every passage could be a negative as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.setting import Setting
from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.train import train_adapter
from ragcun_cache.cache import CachePair, open_pair
from ragcun_cache.collections import find_collection
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_vectors
from ragcun_cache.evaluation.significance import compare
from ragcun_cache.heads.apply import apply_head
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.progress import Advance, progress
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

TITLE = "What mined negatives cost in retrieval"
PACKAGES = ("numpy", "torch")

_DATASETS = ("scifact", "nfcorpus")
_SEEDS = 2
_FOLDS = 5
_SPLIT, _METRIC = "train", "ndcg@10"


def run(setting: Setting, *, datasets: Sequence[str] = _DATASETS, seeds: int = _SEEDS) -> str:
    """Return the section. No query of a test split is used.

    Raises:
        CacheError, CollectionError: a collection is not cached, or not there.
    """
    config = AdapterConfig()
    about = (
        f"A linear query adapter by `tune`'s defaults, {config.epochs} epochs, learnt from four fifths of the judged "
        f"queries of `{_SPLIT}` and measured on the fifth, each fifth in turn, against the whole corpus; test splits "
        f"are not touched. {seeds} seeds, which draw the fifths and order the batches: mean and standard deviation of "
        f"{_METRIC.upper()}. The difference to every passage is that of each query's mean over the seeds, with its "
        "95 % bootstrap interval and the p-value of a paired randomisation test. Above "
        f"{config.full_corpus_rows:,} passages negatives are mined and drawn by default; what is so there, these small "
        "corpora cannot tell."
    )
    parts = [part for name in datasets for part in _collection_part(setting, name, seeds)]
    return paragraphs(about, *parts)


def _collection_part(setting: Setting, name: str, seeds: int) -> list[str]:
    collection = find_collection(name, setting.home, download=False)
    pair = open_pair(setting.home.caches, collection)
    problem = _Problem(pair, collection.qrels(_SPLIT))
    ways = _ways(pair.passage.rows)
    found: dict[str, NDArray[np.float64]] = {}
    with progress(f"adapters of {name}", "trainings", len(ways) * seeds * _FOLDS) as advance:
        for way, config in ways.items():
            found[way] = np.array([problem.held_out(config, seed, advance) for seed in range(seeds)])
    raw_q = problem.scores(problem.query_md)
    rows: list[list[object]] = [["raw encoder", f"{raw_q.mean():.4f}", "", "", ""]]
    whole, *mined = found
    rows.append([whole, _spread(found[whole]), "", "", ""])
    for way in mined:
        paired = compare(found[way].mean(axis=0), found[whole].mean(axis=0))
        rows.append(
            [
                way,
                _spread(found[way]),
                f"{paired.difference:+.4f}",
                f"{paired.interval[0]:+.4f} to {paired.interval[1]:+.4f}",
                f"{paired.p_value:.3f}" if paired.p_value >= 0.001 else "< 0.001",
            ]
        )
    heading = f"`{name}`, {len(raw_q):,} queries, {pair.passage.rows:,} passages:"
    return [heading, table(["negatives", _METRIC.upper(), "− every passage", "95 % interval", "p"], rows)]


def _ways(n_passages: int) -> dict[str, AdapterConfig]:
    mined = AdapterConfig(full_corpus_rows=0)
    return {
        "every passage": AdapterConfig(full_corpus_rows=n_passages),
        f"{mined.hard_negatives} mined, {mined.drawn_negatives:,} drawn": mined,
        f"{mined.hard_negatives} mined alone": mined.model_copy(update={"drawn_negatives": 0}),
    }


def _spread(score_sq: NDArray[np.float64]) -> str:
    mean_s = score_sq.mean(axis=1)
    return f"{mean_s.mean():.4f}" + (f" ± {mean_s.std(ddof=1):.4f}" if len(mean_s) > 1 else "")


class _Problem:
    """The judged queries of a split, ``query_md``, and the corpus, ``passage_nd``: unit rows, float32."""

    def __init__(self, pair: CachePair, qrels: Mapping[str, Mapping[str, int]]) -> None:
        self._pair = pair
        self._judgements = Judgements.of(qrels, pair)
        self._query_ids = [pair.query.ids[row] for row in self._judgements.query_m.tolist()]
        self._qrels = {query_id: qrels[query_id] for query_id in self._query_ids}
        self.query_md = pair.query.array()[self._judgements.query_m]
        self.passage_nd = pair.passage.array()

    def held_out(self, config: AdapterConfig, seed: int, advance: Advance) -> NDArray[np.float64]:
        """Return the score of each query, (m,), by an adapter that has not learnt from it."""
        fold_m = np.random.default_rng(seed).permutation(len(self._judgements)) % _FOLDS
        moved_md = np.empty_like(self.query_md)
        config = config.model_copy(update={"seed": seed})
        passage_nd = torch.from_numpy(self.passage_nd)
        for fold in range(_FOLDS):
            learnt, held = np.flatnonzero(fold_m != fold), np.flatnonzero(fold_m == fold)
            query_ld = torch.from_numpy(self.query_md[learnt])
            adapter = train_adapter(config, self._judgements.take(learnt), query_ld, passage_nd)[config.epochs]
            moved_md[held] = apply_head(adapter, self.query_md[held], Role.QUERY)
            advance(1)
        return self.scores(moved_md)

    def scores(self, query_md: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the score of each query, (m,), searching all passages by cosine."""
        found = evaluate_vectors(
            query_md,
            self._query_ids,
            self.passage_nd,
            self._pair.passage.ids,
            self._qrels,
            Similarity.COSINE,
            EvalConfig(),
        )
        return found.scores.values[_METRIC]
