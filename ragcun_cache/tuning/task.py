"""What a tuning is of: the collection, the heads to try and the collections that may choose, found and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

from ragcun_cache.cache import list_caches, open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.collections.origin import origin_of
from ragcun_cache.errors import CacheError, CollectionError, TrainingError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.subject import Subject
from ragcun_cache.files import sha256_file, sha256_json
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.tuning.code import code_version
from ragcun_cache.tuning.config import Labels, TuneConfig
from ragcun_cache.tuning.data import Data
from ragcun_cache.tuning.heads import learnt_from, refuse_informed, tried_heads
from ragcun_cache.tuning.record import tuning_name

_LIBRARIES = ("numpy", "torch", "bm25s", "PyStemmer")


@dataclass(frozen=True)
class Task:
    """``data`` is tuned for, ``heads`` are tried too; ``others`` may choose where its own judgements may not."""

    config: TuneConfig
    home: Home
    data: Data
    heads: list[HeadRecord]
    others: list[Data]

    @classmethod
    def of(cls, config: TuneConfig, home: Home) -> Self:
        """Find all of it; no vector is read.

        Raises:
            TrainingError: a collection that is named may not choose.
            HeadError: a head knows judgements of the collection where none may be known, or cannot be tuned with.
            CollectionError, CacheError, EvaluationError: something that is named is not there or does not fit.

        """
        collection = find_collection(config.dataset, home, download=False)
        # Found out now, not when all the time is spent.
        collection.qrels_path(collection.test_split)
        pair = open_pair(home.caches, collection, config.encoder)
        heads = tried_heads(config.heads, pair, home)
        data = Data(collection, pair, home, heads)
        if config.labels == Labels.TRAIN:
            return cls(config, home, data, heads, [])
        refuse_informed(heads, collection, None, home)
        return cls(config, home, data, heads, _others(config, data, heads, home))

    @property
    def name(self) -> str:
        """Name of its record."""
        return tuning_name(self.config, self.data.pair)

    def made_from(self) -> str:
        """Return the sha256 of what decides its outcome but is not in its name: code, data, heads, libraries.

        Judgements, those of the test split too, are told by their files, vectors by their fingerprints and texts.
        """
        own = self.data.splits if self.config.labels == Labels.TRAIN else []
        test = self.data.collection.test_split
        judged = [(self.data, [*own, test]), *((other, other.splits) for other in self.others)]
        return sha256_json(
            {
                "code": code_version(),
                "judgements": [
                    [one.collection.name, split, sha256_file(one.collection.qrels_path(split))]
                    for one, splits in judged
                    for split in splits
                ],
                "vectors": [one.pair.provenance() for one, _ in judged],
                "heads": [[head.name, head.sha256] for head in self.heads],
                "libraries": {name: version(name) for name in _LIBRARIES},
            }
        )


def _others(config: TuneConfig, data: Data, heads: Sequence[HeadRecord], home: Home) -> list[Data]:
    """Return the collections that may choose for this one.

    Those that are named; else all that are cached by the same encoder, but for samples of one that is cached whole,
    for titles, which are no queries that anybody asked, and for collections that the encoder was trained on: what is
    best there is not best elsewhere. In no case one that a head was trained on, or whose titles it was trained on, nor
    another sample of it.
    """
    named = config.transfer is not None
    caches = [found for _, found in list_caches(home.caches) if found.encoder == data.pair.encoder]
    names = config.transfer if config.transfer is not None else sorted({found.collection for found in caches})
    found = []
    for name in names:
        try:
            collection = find_collection(name, home, download=False)
            found.append(Data(collection, open_pair(home.caches, collection, data.pair.vectors), home, heads))
        except (CollectionError, CacheError):
            if named:
                raise
    learnt = {origin_of(one.collection, home) for record in heads for one in learnt_from(record, home)}
    refused = {data.origin.whole, *(one.whole for one in learnt), *(one.titles_of for one in learnt)}
    whole = {one.collection.name for one in found}
    chosen = []
    for one in found:
        subject = Subject.of(one.collection, one.pair, EvalConfig())
        if one.origin.whole in refused:
            if named:
                raise TrainingError(
                    f"{one.collection.name} cannot choose for {data.collection.name}",
                    expected="a collection that is not the one tested on, and that no head was trained on",
                )
        elif named or not (one.collection.sample_of in whole or one.origin.titles_of or subject.in_base_training):
            chosen.append(one)
    return chosen
