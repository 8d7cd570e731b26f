"""What a precision costs in retrieval: the raw encoder's NDCG@10 from caches of the same model, beside float32's."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.setting import Setting
from ragcun_cache.cache import CachePair, open_pair
from ragcun_cache.cache.compare import compare_caches
from ragcun_cache.cache.pair import list_caches
from ragcun_cache.collections import find_collection
from ragcun_cache.collections.collection import Collection
from ragcun_cache.errors import CacheError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_run
from ragcun_cache.evaluation.metrics import QueryScores
from ragcun_cache.evaluation.significance import compare, p_text
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.home import Home
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.similarity import Similarity

TITLE = "What a precision costs in retrieval"
PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers", "openvino")

_DATASETS = ("scifact", "nfcorpus")
_METRIC, _EXACT = "ndcg@10", "fp32"


def run(setting: Setting, *, datasets: Sequence[str] = _DATASETS) -> str:
    """Return the section. It encodes nothing: `encode --precision` has filled the caches that it reads.

    Raises:
        CacheError: a collection has no cache in float32, or it alone.
    """
    about = (
        "The raw encoder on the whole test split, from caches that `ragcun-cache encode --precision …` filled, each "
        "beside the one in fp32 of the same model: the smallest cosine between two vectors of one text, and the "
        f"difference in {_METRIC.upper()} with its 95 % bootstrap interval and the p-value of a paired randomisation "
        "test."
    )
    return paragraphs(about, *(block for name in datasets for block in _collection_part(setting.home, name)))


def _collection_part(home: Home, name: str) -> list[str]:
    collection = find_collection(name, home, download=False)
    exact, *others = _pairs(home, collection)
    exact_scores = _scores(collection, exact)
    rows: list[list[object]] = [[_described(exact), "", f"{exact_scores.mean(_METRIC):.4f}", "", "", ""]]
    for pair in others:
        scores = _scores(collection, pair)
        found = compare(scores.values[_METRIC], exact_scores.values[_METRIC])
        cosines = [
            compare_caches(ours, theirs).min_cosine
            for ours, theirs in ((pair.query, exact.query), (pair.passage, exact.passage))
        ]
        rows.append(
            [
                _described(pair),
                " / ".join("-" if cosine is None else f"{cosine:.5f}" for cosine in cosines),
                f"{scores.mean(_METRIC):.4f}",
                f"{found.difference:+.4f}",
                f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}",
                p_text(found.p_value),
            ]
        )
    columns = ["", "smallest cosine, queries / passages", _METRIC.upper(), "difference", "95 % interval", "p"]
    heading = f"`{name}`, {len(exact_scores.values[_METRIC]):,} queries, {exact.passage.rows:,} passages:"
    return [heading, table(columns, rows)]


def _pairs(home: Home, collection: Collection) -> list[CachePair]:
    """Return the caches of all precisions of one model, that in float32 first."""
    encoders = sorted({found.encoder for _, found in list_caches(home.caches, collection.name) if found.complete})
    pairs = [open_pair(home.caches, collection, encoder) for encoder in encoders]
    exact = [pair for pair in pairs if _spec(pair, "precision") == _EXACT]
    others = [pair for pair in pairs if _spec(pair, "precision") != _EXACT]
    same = [pair for pair in others if exact and _spec(pair, "weights") == _spec(exact[0], "weights")]
    if not exact or not same:
        raise CacheError(
            f"{collection.name} is not cached in {_EXACT} and in another precision of the same model",
            where=home.caches,
            found=", ".join(map(_described, pairs)) or "no cache",
            fix=f"ragcun-cache encode --dataset {collection.name} --precision int8, and the same with {_EXACT}",
        )
    return [exact[0], *same]


def _spec(pair: CachePair, field: str) -> object:
    return pair.passage.manifest.spec.get(field)


def _described(pair: CachePair) -> str:
    return f"{_spec(pair, 'backend')} {_spec(pair, 'precision')}, stored in {pair.passage.manifest.dtype}"


def _scores(collection: Collection, pair: CachePair) -> QueryScores:
    subject = Subject.of(collection, pair, EvalConfig())
    found = subject.exact_search(encode_raw, Similarity.COSINE)
    return evaluate_run(found, subject.query_ids, pair.passage.ids, subject.qrels, subject.config).scores
