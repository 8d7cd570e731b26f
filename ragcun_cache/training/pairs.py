"""What a run trains on and what it is watched by: rows of a cache, and dev queries that are never trained on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair, EmbeddingCache, list_caches, open_pair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.errors import CacheError, RagcunCacheError, TrainingError, unknown_choice
from ragcun_cache.files import sha256_file, sha256_json
from ragcun_cache.heads.config import Input, trains
from ragcun_cache.home import Home
from ragcun_cache.training.config import Select, TensorDtype, TrainConfig
from ragcun_cache.training.reference import Reference, make_reference

_DEV_FRACTION = 0.1
# What a sample's pairs are drawn from, whatever the sample's own splits are called.
_TRAIN = "train"


@dataclass(frozen=True)
class TrainingData:
    """Judged pairs of one collection as rows of its caches; loads vectors when they are first asked for.

    ``train_p2`` is (p, 2) int64: row of the query, row of the passage. ``dev_qrels`` are judged queries of which none
    is in ``train_p2``; empty where the collection has nothing to cut them from. ``dev_split`` is the split that they
    are, None where they were cut from train. ``drawn_from`` is the collection that a sample of pairs was drawn from,
    None where there is no sample. ``sha256`` covers the judgements of all three. Vectors are held in ``dtype``.
    """

    collection: str
    caches: CachePair
    train_p2: NDArray[np.int64]
    dev_qrels: Qrels
    ignore_identical_ids: bool
    input: Input
    sha256: str
    dtype: TensorDtype = TensorDtype.FLOAT32
    dev_split: str | None = None
    drawn_from: Collection | None = None

    @cached_property
    def judged_p2(self) -> NDArray[np.int64]:
        """All train pairs that are judged relevant, (j, 2), as rows of the caches: of a sample, those not drawn too."""
        if self.drawn_from is None:
            return self.train_p2
        return np.concatenate([self.train_p2, _rows(self.drawn_from.pairs(_TRAIN), self.caches)])

    @cached_property
    def dev_p2(self) -> NDArray[np.int64]:
        """The judged pairs of the dev queries as rows of the caches, like ``train_p2``."""
        pairs = [
            (query_id, passage_id)
            for query_id, grades in self.dev_qrels.items()
            for passage_id, grade in grades.items()
            if grade > 0
        ]
        return _rows(pairs, self.caches)

    @cached_property
    def query_nd(self) -> NDArray[np.floating]:
        """All query vectors of the cache, (n, d), as heads of this ``input`` take them."""
        return self._vectors(self.caches.query)

    @cached_property
    def passage_nd(self) -> NDArray[np.floating]:
        """All passage vectors of the cache, (n, d), as heads of this ``input`` take them."""
        return self._vectors(self.caches.passage)

    @cached_property
    def reference(self) -> Reference:
        """What heads on this data are measured on, and what raw does there; searched for when first asked for."""
        return make_reference(self)

    def _vectors(self, cache: EmbeddingCache) -> NDArray[np.floating]:
        vectors_nd: NDArray[np.floating] = cache.array(self.dtype.value)
        if self.input == Input.POOLED:
            vectors_nd *= cache.norms[:, None]
        return vectors_nd


def data_settings(config: TrainConfig) -> dict[str, Any]:
    """Return all of ``config`` that ``load_training_data`` looks at; equal ones give the same data."""
    names = ("dataset", "encoder", "pairs", "pairs_seed", "train", "dev", "input", "select", "dtype")
    return {**{name: getattr(config, name) for name in names}, "trains": trains(config.arch)}


def load_training_data(config: TrainConfig, home: Home) -> TrainingData:
    """Find the collection, its caches, and the train and dev queries that ``config`` asks for.

    Raises TrainingError for a split that is the collection's test split, that is unknown, or that leaves no pair;
    CollectionError and CacheError if there is no such collection or no vectors of it.
    """
    whole = find_collection(config.dataset, home, download=False)
    collection, caches = _open(whole, config, home)
    splits = {collection.test_split, "test"}
    for split in (config.train, config.dev):
        if isinstance(split, str):
            _check_split(collection, split, splits, needed=trains(config.arch) or split != config.train)
    pairs = collection.pairs(config.train) if config.train in collection.splits() else []
    dev = _dev(collection, config)
    if dev == config.train and trains(config.arch):
        raise TrainingError(
            f"{collection.name} cannot be trained on {dev!r}: it is the dev split, which nothing is trained on",
            expected="a dev split that is another, or a share of the train queries",
            fix="--dev 0.1",
        )
    dev_qrels = _dev_qrels(collection, config, dev, pairs)
    # A dev query may be judged in the train split too; what dev measures must not be trained on.
    kept = [pair for pair in pairs if pair[0] not in dev_qrels]
    train_p2 = _rows(kept, caches)
    if trains(config.arch) and not len(train_p2):
        raise TrainingError(
            f"{collection.name} has no pair to train on", where=f"split {config.train}", found=f"{len(pairs)} pairs"
        )
    if config.select != Select.LAST and not dev_qrels:
        raise TrainingError(
            f"{collection.name} has no dev query to select by", fix=f"select: {Select.LAST}, or name a dev split"
        )
    drawn_from = None if collection is whole else whole
    not_drawn = [sha256_file(drawn_from.qrels_path(_TRAIN))] if drawn_from else []
    return TrainingData(
        collection=collection.name,
        caches=caches,
        train_p2=train_p2,
        dev_qrels=dev_qrels,
        ignore_identical_ids=collection.ignore_identical_ids,
        input=config.input,
        sha256=sha256_json([kept, list(dev_qrels.items()), *not_drawn]),
        dtype=config.dtype,
        dev_split=dev if isinstance(dev, str) else None,
        drawn_from=drawn_from,
    )


def _open(whole: Collection, config: TrainConfig, home: Home) -> tuple[Collection, CachePair]:
    """Return the collection to train on and the caches that its rows are in.

    A sample of pairs has caches of its own if the sample was encoded by itself; otherwise its rows are found in the
    caches of the whole, whose passages then are the dev corpus.
    """
    if config.pairs is None:
        return whole, open_pair(home.caches, whole, config.encoder)
    from ragcun_cache.collections.sample import sample_pairs

    sample = sample_pairs(whole, config.pairs, config.pairs_seed, home)
    try:
        return sample, open_pair(home.caches, sample, config.encoder)
    except CacheError as no_sample:
        try:
            return sample, open_pair(home.caches, whole, config.encoder)
        except CacheError as no_whole:
            # What is cached is what the user thought of.
            of_whole = list_caches(home.caches, whole.name) and not list_caches(home.caches, sample.name)
            raise (no_whole if of_whole else no_sample) from None


def _check_split(collection: Collection, split: str, test_splits: set[str], *, needed: bool) -> None:
    if split in test_splits:
        raise TrainingError(
            f"{split!r} is the test split of {collection.name}: it is for evaluation only",
            expected=f"one of {', '.join(sorted(set(collection.splits()) - test_splits)) or 'none: it has no other'}",
            found=split,
        )
    if needed and not set(collection.splits()) - test_splits:
        raise TrainingError(
            f"{collection.name} has no split to train on: its test split is for evaluation only",
            where=collection.folder,
            expected="qrels/train.tsv",
            found=", ".join(collection.splits()) or "no split",
            fix=f"ragcun-cache tune --dataset {shlex.quote(collection.dataset)} --labels none",
        )
    if needed and split not in collection.splits():
        found: RagcunCacheError = unknown_choice(
            f"split of {collection.name}",
            split,
            set(collection.splits()) - test_splits,
            where=collection.folder,
            error=TrainingError,
        )
        raise found


def _dev(collection: Collection, config: TrainConfig) -> str | float:
    """Return the dev split, or the share of the train queries to be set apart, that ``config`` names or leaves out."""
    return config.dev or collection.dev_split or _DEV_FRACTION


def _dev_qrels(collection: Collection, config: TrainConfig, dev: str | float, pairs: list[tuple[str, str]]) -> Qrels:
    """Return the judgements of the dev queries: a split's, or those of a share of the train queries."""
    if isinstance(dev, str):
        qrels = collection.qrels(dev)
        return {query_id: qrels[query_id] for query_id in qrels if any(grade > 0 for grade in qrels[query_id].values())}
    query_ids = sorted({query_id for query_id, _ in pairs})
    if len(query_ids) < 2:
        return {}
    count = max(1, round(dev * len(query_ids)))
    chosen = np.random.default_rng(config.pairs_seed).permutation(len(query_ids))[:count]
    qrels = collection.qrels(config.train)
    return {query_ids[index]: qrels[query_ids[index]] for index in sorted(chosen)}


def _rows(pairs: list[tuple[str, str]], caches: CachePair) -> NDArray[np.int64]:
    """Return the cache rows of the pairs, (p, 2); a judgement of a text that the collection lacks is passed over."""
    query_row = {query_id: row for row, query_id in enumerate(caches.query.ids)}
    passage_row = {passage_id: row for row, passage_id in enumerate(caches.passage.ids)}
    rows = [
        (query_row[query_id], passage_row[passage_id])
        for query_id, passage_id in pairs
        if query_id in query_row and passage_id in passage_row
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
