"""What heads are evaluated on: one split of one collection with its cached vectors, read once for all heads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.collections.registry import REGISTRY
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_vectors
from ragcun_cache.evaluation.metrics import judged_queries
from ragcun_cache.evaluation.results import EvaluatedHead, Result, ResultStore, Setting, metric_name, result_key
from ragcun_cache.files import sha256_json
from ragcun_cache.provenance import library_versions, machine, source_commit
from ragcun_cache.role import Role

Encode = Callable[[NDArray[np.float32], NDArray[np.float32], Role], NDArray[np.float32]]
"""A head: cached unit vectors (n, d), their norms before normalisation (n,), and the role -> (n, e)."""

_BASE_MODEL = "all-mpnet-base-v2"


def encode_raw(vectors_nd: NDArray[np.float32], norms_n: NDArray[np.float32], role: Role) -> NDArray[np.float32]:
    """Return ``vectors_nd`` itself: the raw encoder."""
    return vectors_nd


@dataclass(frozen=True)
class Subject:
    """One split of one collection in one encoder's vectors. Vectors are only read when a head needs them."""

    collection: Collection
    pair: CachePair
    config: EvalConfig

    @classmethod
    def of(cls, collection: Collection, pair: CachePair, config: EvalConfig) -> Subject:
        """Bind ``config`` to what ``collection`` says where the config leaves it open."""
        return cls(collection, pair, config.resolved(collection))

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.config.split or self.collection.test_split

    @cached_property
    def qrels(self) -> Qrels:
        """Judgements of the split. Raises CollectionError, naming those there are, if it does not exist."""
        return self.collection.qrels(self.split)

    @cached_property
    def setting(self) -> Setting:
        """All that a figure depends on but the head."""
        query, passage = self.pair.query, self.pair.passage
        return Setting(
            collection=self.collection.name,
            sample_of=self.collection.sample_of,
            split=self.split,
            encoder=self.pair.encoder,
            model=str(passage.manifest.spec.get("model_id")),
            query_fingerprint=query.fingerprint,
            query_content_sha256=query.content_sha256,
            passage_fingerprint=passage.fingerprint,
            passage_content_sha256=passage.content_sha256,
            qrels_sha256=sha256_json(self.qrels),
            config=self.config,
        )

    @property
    def in_base_training(self) -> bool:
        """Whether the encoder was trained on the collection's source, so that no figure on it is zero-shot."""
        published = REGISTRY.get(self.collection.sample_of or self.collection.name)
        return published is not None and published.in_base_training and self.setting.model.endswith(_BASE_MODEL)

    @cached_property
    def query_ids(self) -> list[str]:
        """Judged queries that have a vector; the others will score 0."""
        known = set(self.pair.query.ids)
        return [query_id for query_id in judged_queries(self.qrels) if query_id in known]

    @cached_property
    def _queries(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        positions = self.pair.query.positions(self.query_ids)
        return self.pair.query.gather(positions), self.pair.query.norms[positions]

    @cached_property
    def _passages(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.pair.passage.array(), self.pair.passage.norms

    def evaluate(self, head: EvaluatedHead, encode: Callable[[], Encode], store: ResultStore) -> Result:
        """Return the stored result of ``head``, or evaluate and store it.

        Args:
            head: what the result says of the head; its hash and settings are the head's part of the key.
            encode: returns the head itself; only called if there is no stored result.
            store: where results are looked for and kept.

        Raises:
            EvaluationError: no query is judged, or the head puts out something that cannot be searched.

        """
        stored = store.find(result_key(self.setting, head))
        if stored is not None:
            return stored
        started = time.perf_counter()
        apply = encode()
        query_qe = apply(*self._queries, Role.QUERY)
        passage_ne = apply(*self._passages, Role.PASSAGE)
        try:
            found = evaluate_vectors(
                query_qe,
                self.query_ids,
                passage_ne,
                self.pair.passage.ids,
                self.qrels,
                head.similarity,
                self.config,
            )
        except EvaluationError as error:
            raise EvaluationError(
                f"{head.name} on {self.collection.name}/{self.split}: {error.problem}",
                where=error.where,
                expected=error.expected,
                found=error.found,
                fix=error.fix,
            ) from error
        sample_of = self.collection.sample_of
        result = Result(
            setting=self.setting,
            head=head,
            metrics={metric_name(metric, sample_of): found.scores.mean(metric) for metric in found.scores.values},
            ndcg_identical_kept=found.identical_kept,
            counts=found.counts,
            passages=self.pair.passage.rows,
            in_base_training=self.in_base_training,
            seconds=time.perf_counter() - started,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=library_versions(),
            machine=machine(),
            commit=source_commit(),
        )
        store.save(result, found.scores)
        return result
