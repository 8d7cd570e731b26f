"""The results store: Parquet files, added or removed but never replaced, that Parquet readers take as one table."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ragcun_cache.collections.locate import name_of
from ragcun_cache.collections.registry import each_name
from ragcun_cache.errors import EvaluationError, unknown_choice
from ragcun_cache.evaluation.metrics import METRICS, QueryScores
from ragcun_cache.evaluation.results import SCHEMA_VERSION, Result, metric_name
from ragcun_cache.files import atomic_file, make_folder, sync_folder

if TYPE_CHECKING:
    import polars as pl

_log = logging.getLogger(__name__)

RUNS, PER_QUERY = "runs", "per_query"
_NAMES = (*METRICS, *(metric_name(metric, "sample") for metric in METRICS))
# A mean of the same numbers is the same number, but for the order in which another numpy may add them.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ResultStore:
    """The results below ``root``: ``runs/<key>.parquet`` (one row) and ``per_query/<key>.parquet`` (a row a query).

    Writing is atomic and never replaces a result that is there; only its date can be renewed. A file that cannot be
    read is no result: it is named in a warning of the standard ``logging``, passed over, and replaced when its
    evaluation is run again.
    """

    root: Path
    _scores: dict[str, tuple[QueryScores, NDArray[np.bool_] | None]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def run_path(self, key: str) -> Path:
        """Return the file of a result's row."""
        return self.root / RUNS / f"{key}.parquet"

    def per_query_path(self, key: str) -> Path:
        """Return the file of a result's per-query scores."""
        return self.root / PER_QUERY / f"{key}.parquet"

    def find(self, key: str) -> Result | None:
        """Return the result of that key, or None if there is none that can be read."""
        if not self.run_path(key).exists():
            return None
        try:
            return self._load(key)
        except EvaluationError as error:
            self._warn(str(error))
            return None

    def all(self) -> list[Result]:
        """Return every result that can be read, by collection, then date."""
        keys = sorted(path.stem for path in (self.root / RUNS).glob("[!.]*.parquet"))
        older = sum(1 for _ in self.root.glob("[!.]*/result.json"))
        if older:
            self._warn(
                f"{older} results of an older format are not read (folders with a result.json in {self.root}): "
                "evaluate again, which takes seconds, and delete them"
            )
        found = [result for result in map(self.find, keys) if result is not None]
        return sorted(found, key=lambda result: (result.setting.collection, result.date, result.key))

    def save(self, result: Result, scores: QueryScores, gold_seen_q: NDArray[np.bool_] | None = None) -> None:
        """Write the per-query scores, then the result: without the second file the first is nothing.

        Args:
            result: to be kept; if there is one of its key already, that one stays.
            scores: of its judged queries.
            gold_seen_q: (q,) which of them have a relevant passage that was one in training, if there was training.

        """
        if self.find(result.key) is not None:
            return
        self._scores.pop(result.key, None)
        with atomic_file(self.per_query_path(result.key)) as handle:
            _per_query_frame(result, scores, gold_seen_q).write_parquet(handle)
        path = self.run_path(result.key)
        damaged = path.exists()
        make_folder(path.parent)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with atomic_file(partial) as handle:
                runs_frame([result]).write_parquet(handle)
            if damaged:
                partial.replace(path)
            else:
                with suppress(FileExistsError):
                    path.hardlink_to(partial)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, result: Result) -> None:
        """Delete a result, and then its per-query scores."""
        self.run_path(result.key).unlink(missing_ok=True)
        self.per_query_path(result.key).unlink(missing_ok=True)
        self._scores.pop(result.key, None)

    def renew(self, result: Result, date: str) -> Result:
        """Return a stored result with a later date, kept in place of the one that was there.

        For a system that was made again and came out as before: of the results of its seed it is the newest then.
        """
        renewed = result.model_copy(update={"date": date})
        with atomic_file(self.run_path(result.key)) as handle:
            runs_frame([renewed]).write_parquet(handle)
        return renewed

    def per_query(self, result: Result) -> QueryScores:
        """Return the per-query scores of a result, under the names that its ``metrics`` have.

        Queries are in the order of their ids, whatever that of the judgements' file was when it was evaluated: row for
        row, two results of one setting are of the same queries.
        """
        return self._per_query(result)[0]

    def gold_seen(self, result: Result) -> NDArray[np.bool_] | None:
        """Return which of the queries in ``per_query`` have a relevant passage that was one in training, (q,).

        None unless the system was trained on the collection.
        """
        return self._per_query(result)[1]

    def _per_query(self, result: Result) -> tuple[QueryScores, NDArray[np.bool_] | None]:
        import polars as pl

        key = result.key
        if key not in self._scores:
            path = self.per_query_path(key)
            try:
                # The hash of the judgements, and so the setting, is the same in whatever order a file has them.
                frame = pl.read_parquet(path).sort("query_id")
                values = {name: frame[name].to_numpy().astype(np.float64, copy=False) for name in result.metrics}
                seen = frame["gold_seen"]
                query_ids = frame["query_id"].to_list()
            except (OSError, pl.exceptions.PolarsError) as error:
                raise _damaged(path, error) from None
            scores = QueryScores(query_ids, values)
            for name, mean in result.metrics.items():
                if not abs(scores.mean(name) - mean) <= _ROUNDING:
                    raise _damaged(path, f"{name} has the mean {scores.mean(name)}, the result says {mean}")
            self._scores[key] = scores, None if result.seen_gold is None else seen.to_numpy()
        return self._scores[key]

    def _load(self, key: str) -> Result:
        import polars as pl

        path = self.run_path(key)
        try:
            content = json.loads(pl.read_parquet(path, columns=["record"])["record"].item())
            if (version := content.get("schema_version")) != SCHEMA_VERSION:
                raise EvaluationError(
                    "a stored result is of another version",
                    where=path,
                    expected=f"schema {SCHEMA_VERSION}",
                    found=f"schema {version}",
                    fix="delete the file and run `ragcun-cache eval` again",
                )
            result = Result.model_validate(content)
        except (OSError, ValueError, AttributeError, ValidationError, pl.exceptions.PolarsError) as error:
            raise _damaged(path, error) from None
        if result.key != key:
            raise _damaged(path, f"the result {result.key}")
        self._per_query(result)
        return result

    def _warn(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            _log.warning("%s", message)


def stored_results(store: ResultStore, collections: Sequence[str] | None = None) -> list[Result]:
    """Return the results of all collections, or of those named, by name or folder.

    A group stands for its members, commas divide names.

    Raises:
        EvaluationError: there is none, or none of a collection that is named.

    """
    results = store.all()
    if not results:
        raise EvaluationError(
            "there are no results yet", where=store.root, fix="ragcun-cache eval --dataset COLLECTION"
        )
    if not collections:
        return results
    known = {result.setting.collection for result in results}
    asked = each_name(collections)
    names = {name_of(Path(name)) if name not in known and Path(name).is_dir() else name for name in asked}
    if unknown := sorted(names - known):
        raise unknown_choice("collection", unknown[0], known, where=store.root, error=EvaluationError)
    return [result for result in results if result.setting.collection in names]


def _damaged(path: Path, found: object) -> EvaluationError:
    return EvaluationError(
        "a stored result cannot be read, and is left out",
        where=path,
        found=found,
        fix="run `ragcun-cache eval` of it again, with its --split and --index: it replaces the file",
    )


def _per_query_frame(result: Result, scores: QueryScores, gold_seen_q: NDArray[np.bool_] | None) -> pl.DataFrame:
    """Return the table of per-query scores; its columns are the same for every result."""
    import polars as pl

    columns = {metric_name(metric, result.setting.sample_of): values for metric, values in scores.values.items()}
    rows = len(scores.query_ids)
    return pl.DataFrame(
        {
            "key": [result.key] * rows,
            "query_id": scores.query_ids,
            **{name: columns.get(name, [None] * rows) for name in _NAMES},
            "gold_seen": [None] * rows if gold_seen_q is None else gold_seen_q,
        },
        schema={
            "key": pl.String,
            "query_id": pl.String,
            **dict.fromkeys(_NAMES, pl.Float64),
            "gold_seen": pl.Boolean,
        },
    )


def runs_frame(results: Sequence[Result]) -> pl.DataFrame:
    """Return one row a result: what was evaluated on what, every metric, counts, cost, origin, and the whole record.

    The columns are the same for every result. Settings, machine, versions and the record are JSON.
    """
    import polars as pl

    text, whole, real = pl.String(), pl.Int64(), pl.Float64()
    schema = {
        "key": text, "collection": text, "sample_of": text, "split": text, "model": text, "encoder": text,
        "index": text, "route": text, "system": text, "arch": text, "init": text, "out_dim": whole, "seed": whole,
        "similarity": text, "group": text, "settings": text,
        **dict.fromkeys(_NAMES, real),
        "judged": whole, "missing": whole, "without_relevant": whole, "absent_passages": whole,
        "identical_dropped": whole, "ndcg_identical_kept": real, "gold_seen": whole, "gold_unseen": whole,
        "queries_repeated": whole, "exact_recall@10": real, "exact_ndcg_difference": real, "passages": whole,
        "in_base_training": pl.Boolean(), "cost_seconds": real, "cost_parameters": whole, "cost_bytes": whole,
        "cost_index_rebuilt": pl.Boolean(), "seconds": real, "date": text, "commit": text, "machine": text,
        "versions": text, "record": text,
    }  # fmt: skip
    return pl.DataFrame([dict(_run_row(result)) for result in results], schema=schema)


def _run_row(result: Result) -> Iterator[tuple[str, Any]]:
    setting, system = result.setting, result.system
    yield "key", result.key
    for name in ("collection", "sample_of", "split", "model", "encoder"):
        yield name, getattr(setting, name)
    yield "index", str(setting.config.index)
    yield "route", result.route
    yield "system", system.name
    for name in ("arch", "init", "out_dim", "seed", "group"):
        yield name, getattr(system, name)
    yield "similarity", None if system.similarity is None else str(system.similarity)
    yield "settings", _json(system.settings)
    for name in _NAMES:
        yield name, result.metrics.get(name)
    yield from asdict(result.counts).items()
    yield "ndcg_identical_kept", result.ndcg_identical_kept
    seen, exact, cost = result.seen_gold, result.against_exact, result.cost
    yield "gold_seen", seen and seen.seen
    yield "gold_unseen", seen and seen.unseen
    yield "queries_repeated", seen and seen.repeated
    yield "exact_recall@10", exact and exact.recall
    yield "exact_ndcg_difference", exact and exact.ndcg_difference
    for name in ("seconds", "parameters", "bytes", "index_rebuilt"):
        yield f"cost_{name}", cost and getattr(cost, name)
    for name in ("passages", "in_base_training", "seconds", "date", "commit"):
        yield name, getattr(result, name)
    yield "machine", _json(result.machine)
    yield "versions", _json(result.versions)
    yield "record", _json(result.content())


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)
