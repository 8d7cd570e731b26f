"""The system that a tuning has chosen, learnt from all that it may know: what it ranks, what it costs, what is kept."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.evaluation.results import Result, result_key
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import Cost, System, TrainedOn
from ragcun_cache.files import atomic_file, sha256_json
from ragcun_cache.heads.config import ADAPTER
from ragcun_cache.heads.store import HeadRecord, save_head
from ragcun_cache.home import Home
from ragcun_cache.provenance import library_versions, source_commit
from ragcun_cache.retrieval.pool import BLOCK_QUERIES
from ragcun_cache.retrieval.run import Run
from ragcun_cache.similarity import Similarity
from ragcun_cache.tuning.code import code_version
from ragcun_cache.tuning.config import Labels, TuneConfig
from ragcun_cache.tuning.data import Data
from ragcun_cache.tuning.spec import Adapter, Spec, TrainedHead
from ragcun_cache.tuning.vectors import Vectors

_CODE_DIGITS = 8


class Fitted:
    """The chosen system, learnt from all judgements that it may know."""

    def __init__(self, spec: Spec, data: Data, train: Judgements | None) -> None:
        self.spec = spec
        self._data = data
        self._train = train
        if not spec.is_raw:
            # Learnt now, so that whoever takes the time has it in.
            _ = self._vectors

    @cached_property
    def _vectors(self) -> Vectors:
        return self._data.source.vectors(self.spec.dense, self._train)

    def rank(self, subject: Subject) -> Run:
        """Return the run of the test queries, of which only so many at once are scored with all passages."""
        if self.spec.is_raw:
            return subject.search(encode_raw, Similarity.COSINE)
        pair, most = self._data.pair, self._data.most_queries()
        # Blocks of the pool are whole then, so that the last bits of scores do not depend on where the queries are cut.
        rows = most - most % BLOCK_QUERIES or most
        run: Run = {}
        for start in range(0, len(subject.query_ids), rows):
            query_ids = subject.query_ids[start : start + rows]
            queries = self._data.queries(pair.query.positions(query_ids), self._train)
            scored = queries.scored_alone(self._vectors, self.spec)
            run |= scored.pool.run(scored.fused(self.spec), query_ids, pair.passage.ids, subject.config.depth)
        return run

    def test(self, subject: Subject, system: System, seconds: float, store: ResultStore) -> Result:
        """Return the result of the test, which is stored as the newest of its seed whether or not it was there."""
        stored = store.find(result_key(subject.setting, system))
        result = subject.evaluate_run(system, lambda: self.rank(subject), store, cost=self.cost(seconds))
        if stored is None:
            return result
        return store.renew(result, datetime.now(UTC).isoformat(timespec="seconds"))

    def system(self, config: TuneConfig, *trained_on: tuple[TrainedOn, ...]) -> System:
        """Return what the result says of it. Tunings that differ only in their seed are seeds of one row.

        ``trained_on`` are the splits that it was chosen by, then those that the head in it was trained on.
        """
        known = tuple(dict.fromkeys(one for group in trained_on for one in group))
        chosen_by = ", ".join(f"{one.collection}/{one.split}" for one in trained_on[0])
        # Of raw vectors the setting of the result says all.
        made_of = (
            {}
            if self.spec.is_raw
            else {
                "queries": _hash(self._vectors.queries(self._data.source.query_md)),
                "passages": _hash(self._vectors.passage_nd),
                "bm25": self._data.bm25.sha256,
                # Of how all of it is ranked.
                "code": code_version(),
            }
        )
        sha256 = sha256_json(
            {
                "spec": self.spec.model_dump(mode="json"),
                **made_of,
                "train": None if self._train is None else self._train.sha256,
                # Seeds that choose alike are results of their own: each counts in the row.
                "seed": config.seed,
            }
        )
        return System(
            name=f"tuned-{config.labels}-seed{config.seed}-{sha256[:8]}",
            sha256=sha256,
            arch=f"tuned, labels {config.labels}",
            seed=config.seed,
            # Other collections that choose make another row; a head that won, with what it was trained on, does not.
            settings=config.recipe | ({"trained_on": chosen_by} if config.labels == Labels.NONE and chosen_by else {}),
            code=code_version()[:_CODE_DIGITS],
            trained_on=known,
            route=None if known else "zero-shot",
        )

    def cost(self, seconds: float) -> Cost:
        """Return what it takes to make and to keep, beyond the cached vectors."""
        if self.spec.is_raw:
            return Cost(seconds=seconds, parameters=0, bytes=0, index_rebuilt=False)
        head, moved = self._vectors.head, self._vectors.moved_passages
        parameters = 0 if head is None else sum(one.numel() for one in head.parameters())
        size = 4 * parameters
        if self.spec.bm25 is not None:
            size += self._data.bm25.bytes
        if self.spec.memory is not None and self._train is not None:
            size += 2 * len(self._train) * self._data.pair.query.dim + 12 * len(self._train.passage_j)
        return Cost(seconds=seconds, parameters=parameters, bytes=size, index_rebuilt=moved)

    def save(
        self,
        config: TuneConfig,
        trained_on: tuple[TrainedOn, ...],
        dev_ndcg: float | None,
        seconds: float,
        home: Home,
    ) -> HeadRecord | None:
        """Keep the adapter, if it learnt one, as a head that ``eval``, ``search`` and ``heads export`` know.

        One that was given to it is a head already, with a record of its own of what it was trained on. None that learnt
        from shuffled judgements is kept: it is worth nothing to anybody.
        """
        import polars

        from ragcun_cache.training.diagnostics import DEV_METRIC
        from ragcun_cache.training.run import METRICS_NAME

        if self._train is None or isinstance(self.spec.dense, TrainedHead) or self.spec.is_raw or config.shuffled:
            return None
        head, pair = self._vectors.head, self._data.pair
        if head is None or head.config.arch != ADAPTER:
            return None
        splits = [one.split for one in trained_on if one.collection == pair.collection]
        epochs, dense = 1, self.spec.dense.model_dump(mode="json")
        if isinstance(self.spec.dense, Adapter):
            epochs = self.spec.dense.config.epochs
            # It is the seed of the tuning, which stands by itself: what else it was made with is that of all seeds.
            del dense["config"]["seed"]
        row = {DEV_METRIC: dev_ndcg, "epoch": epochs, "train_seconds": seconds, "measure_seconds": 0.0}
        provenance = {
            "complete": True,
            "epoch": epochs,
            "epochs": epochs,
            "seed": config.seed,
            "encoder": pair.encoder,
            "encoder_model": pair.passage.manifest.spec.get("model_id"),
            "caches": pair.provenance(),
            "train_pairs": len(self._train.passage_j),
            "train": {
                **dense,
                "train": splits[0],
                "train_queries": config.train_queries,
                "epochs": epochs,
                **({"dev": splits[1], "select": "best_dev"} if len(splits) > 1 else {}),
            },
            "metrics": row,
            "code": code_version()[:_CODE_DIGITS],
            "versions": library_versions(),
            "commit": source_commit(),
        }
        sha256 = _hash(self._vectors.queries(self._data.source.query_md))
        name = f"{pair.collection.replace('/', '__')}-adapter-{self.spec.dense.kind}-seed{config.seed}-{sha256[:8]}"
        record = save_head(home.heads / name, head, provenance)
        table = io.BytesIO()
        polars.DataFrame([row]).write_parquet(table)
        with atomic_file(record.folder / METRICS_NAME) as handle:
            handle.write(table.getvalue())
        return record


def _hash(rows_nd: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows_nd).data).hexdigest()
