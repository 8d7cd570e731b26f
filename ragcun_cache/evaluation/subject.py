"""What systems are evaluated on: one split of one collection with its cached vectors, read once for all heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.collections.registry import REGISTRY
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Evaluation, evaluate_run
from ragcun_cache.evaluation.metrics import judged_queries
from ragcun_cache.evaluation.results import (
    AgainstExact,
    Result,
    SeenGold,
    Setting,
    metric_name,
    result_key,
    route_of,
    trained_splits,
)
from ragcun_cache.evaluation.seen import TrainingSplits, seen_gold
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import Cost, System
from ragcun_cache.files import sha256_json
from ragcun_cache.provenance import library_versions, machine, source_commit
from ragcun_cache.retrieval.index import FLAT, index_search, parse_index, recall_at_10
from ragcun_cache.retrieval.run import Run, write_trec
from ragcun_cache.retrieval.search import BLOCK_ROWS, search_blocks
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

Encode = Callable[[NDArray[np.float32], NDArray[np.float32], Role], NDArray[np.float32]]
"""A head: cached unit vectors (n, d), their norms before normalisation (n,), and the role -> (n, e)."""

# https://sbert.net/docs/pretrained_models.html says of all of them that they were trained on whatever pairs there were,
# more than a billion. Cards on the Hugging Face hub (sentence-transformers/all-MiniLM-L6-v2, all-distilroberta-v1) list
# MS MARCO, Natural Questions, StackExchange and Quora's question pairs among them, as all-mpnet-base-v2's does.
_BASE_MODELS = (
    "all-mpnet-base-v1",
    "all-mpnet-base-v2",
    "all-MiniLM-L6-v1",
    "all-MiniLM-L6-v2",
    "all-MiniLM-L12-v1",
    "all-MiniLM-L12-v2",
    "all-distilroberta-v1",
    "all-roberta-large-v1",
)


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
        """Whether the encoder was trained on the collection's source, so that no figure on it is zero-shot.

        One whose name holds that of a model is taken for that model, or for one that was made from it.
        """
        published = REGISTRY.get(self.collection.sample_of or self.collection.name)
        trained = any(model in self.setting.model for model in _BASE_MODELS)
        return published is not None and published.in_base_training and trained

    @cached_property
    def query_ids(self) -> list[str]:
        """Judged queries that have a vector; the others will score 0."""
        known = set(self.pair.query.ids)
        return [query_id for query_id in judged_queries(self.qrels) if query_id in known]

    @cached_property
    def _queries(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        positions = self.pair.query.positions(self.query_ids)
        return self.pair.query.gather(positions), self.pair.query.norms[positions]

    def search(self, encode: Encode, similarity: Similarity) -> Run:
        """Return the run of a head by the index of the config: all judged queries, ``config.depth`` passages deep.

        Raises:
            EvaluationError: the head puts out something that cannot be searched, or the index cannot be built.

        """
        index = parse_index(self.config.index)
        if index is None:
            return self.exact_search(encode, similarity)
        return index_search(
            index,
            encode(*self._queries, Role.QUERY),
            self.query_ids,
            lambda: self._encoded_passages(encode),
            self.pair.passage.ids,
            similarity,
            self.config.depth,
        )

    def exact_search(self, encode: Encode, similarity: Similarity) -> Run:
        """Return the run of a head by exact search, whatever the index of the config. Raises as ``search``."""
        return search_blocks(
            encode(*self._queries, Role.QUERY),
            self.query_ids,
            self._encoded_passages(encode),
            self.pair.passage.ids,
            similarity,
            self.config.depth,
            drop_identical_ids=False,
        )

    def _encoded_passages(self, encode: Encode) -> Iterator[NDArray[np.float32]]:
        """Yield what the head makes of the passages, block by block, so that the corpus is never in memory whole."""
        first = 0
        for vectors_bd in self.pair.passage.blocks(BLOCK_ROWS):
            yield encode(vectors_bd, self.pair.passage.norms[first : first + len(vectors_bd)], Role.PASSAGE)
            first += len(vectors_bd)

    def evaluate(
        self,
        head: System,
        encode: Callable[[], Encode],
        store: ResultStore,
        *,
        cost: Cost | None = None,
        run_folder: Path | None = None,
    ) -> Result:
        """Return the stored result of a head, or evaluate and store it.

        Args:
            head: what the result says of the head; its hash and settings are the head's part of the key.
            encode: returns the head itself; only called if there is no stored result.
            store: where results are looked for and kept.
            cost: what it takes beyond the cached vectors, if that is known.
            run_folder: where a TREC run file is written as well, if there is none yet.

        Raises:
            EvaluationError: no query is judged, or the head puts out something that cannot be searched.

        """
        if head.similarity is None:
            raise EvaluationError(f"{head.name} has vectors and does not say how they are compared")
        similarity = head.similarity
        return self.evaluate_run(
            head,
            lambda: self.search(encode(), similarity),
            store,
            exact=None if self.config.index == FLAT else lambda: self.exact_search(encode(), similarity),
            cost=cost,
            run_folder=run_folder,
        )

    def evaluate_run(
        self,
        system: System,
        rank: Callable[[], Run],
        store: ResultStore,
        *,
        exact: Callable[[], Run] | None = None,
        cost: Cost | None = None,
        run_folder: Path | None = None,
    ) -> Result:
        """Return the stored result of a system that makes its run itself, such as a fusion, or evaluate and store it.

        Args:
            system: what the result says of it; its hash and settings are its part of the key.
            rank: returns the run of the queries in ``query_ids``, ``config.depth`` passages each where there are so
                many; only called if there is no stored result.
            store: where results are looked for and kept.
            exact: returns the run that exact search would make, if ``rank`` searches an approximate index: the result
                then says how far the two are apart.
            cost: what it takes beyond the cached vectors, if that is known.
            run_folder: where a TREC run file is written as well, if there is none yet.

        Raises:
            EvaluationError: no query is judged, the run breaks the contract, or see ``refusal``.

        """
        setting, place = self.setting, f"{self.collection.name}/{self.split}"
        if (refused := self.refusal(system)) is not None:
            raise refused
        route_of(system, setting.collection, setting.sample_of)
        key = result_key(setting, system)
        stored = store.find(key)
        if stored is not None:
            # Other code may have made the same head.
            stored = stored.model_copy(update={"system": stored.system.model_copy(update={"code": system.code})})
        run_file = run_folder and run_folder / f"{place.replace('/', '__')}-{system.name}-{key}.run"
        if stored is not None and (run_file is None or run_file.exists()):
            return stored
        started = time.perf_counter()
        try:
            found = self._score(rank())
            seconds = time.perf_counter() - started
            against_exact = None if exact is None else _against(self._score(exact()), found)
        except EvaluationError as error:
            raise EvaluationError(
                f"{system.name} on {place}: {error.problem}",
                where=error.where,
                expected=error.expected,
                found=error.found,
                fix=error.fix,
            ) from error
        if run_file is not None:
            write_trec(run_file, found.run, system.name)
        if stored is not None:
            return stored
        seen, seen_q = self._seen_gold(system, found)
        result = self._result(system, found, seconds).model_copy(
            update={"cost": cost, "seen_gold": seen, "against_exact": against_exact}
        )
        store.save(result, found.scores, seen_q)
        return result

    def _score(self, run: Run) -> Evaluation:
        return evaluate_run(run, self.query_ids, self.pair.passage.ids, self.qrels, self.config)

    def _seen_gold(self, system: System, found: Evaluation) -> tuple[SeenGold | None, NDArray[np.bool_] | None]:
        """Split the figure by seen and unseen gold, if the system was trained on this very collection.

        Of a sample it is not known: a system that was trained on the whole has seen more than the sample's judgements.
        """
        splits = tuple(dict.fromkeys(trained_splits(system, self.collection.name, None)))
        if not splits or not set(splits) <= set(self.collection.splits()):
            return None, None
        if splits not in self._training_splits:
            self._training_splits[splits] = TrainingSplits(self.collection, splits)
        return seen_gold(self._training_splits[splits], self.qrels, found.scores, self.collection.sample_of)

    @cached_property
    def _training_splits(self) -> dict[tuple[str, ...], TrainingSplits]:
        return {}

    def refusal(self, system: System) -> EvaluationError | None:
        """Return why a system cannot be tested here, or None if it can.

        It cannot if it was trained or chosen by a split that figures are published on, or by the one that it would be
        evaluated on: its figures there are those of its training. On a sample it cannot either if it was trained on
        the whole or on another sample, for any query may be in both.
        """
        own = trained_splits(system, self.collection.name, None)
        whole = self.collection.sample_of
        if not own and (known := trained_splits(system, self.collection.name, whole)):
            return EvaluationError(
                f"{system.name} was trained or chosen by the {known[0]} split of {whole}, and so perhaps by queries of "
                f"{self.collection.name}, which was drawn from it",
                expected="a system that has never seen the judgements it is tested on",
                fix="evaluate it on the whole",
            )
        if tested := sorted({self.collection.test_split, "test", self.split}.intersection(own)):
            return EvaluationError(
                f"{system.name} was trained or chosen by the {tested[0]} split of {self.collection.name}",
                expected="a system that has never seen the judgements it is tested on",
            )
        return None

    def _result(self, system: System, found: Evaluation, seconds: float) -> Result:
        sample_of = self.collection.sample_of
        return Result(
            setting=self.setting,
            system=system,
            metrics={metric_name(metric, sample_of): found.scores.mean(metric) for metric in found.scores.values},
            ndcg_identical_kept=found.identical_kept,
            counts=found.counts,
            passages=self.pair.passage.rows,
            in_base_training=self.in_base_training,
            seconds=seconds,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=library_versions(),
            machine=machine(),
            commit=source_commit(),
        )


def _against(exact: Evaluation, found: Evaluation) -> AgainstExact:
    return AgainstExact(
        recall=recall_at_10(found.run, exact.run),
        ndcg_difference=found.scores.mean("ndcg@10") - exact.scores.mean("ndcg@10"),
    )
