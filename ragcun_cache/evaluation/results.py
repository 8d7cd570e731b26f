"""The results store: one folder a result, named by everything that the figure depends on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.metrics import QueryScores
from ragcun_cache.files import atomic_file, sha256_json, sync_folder, write_json
from ragcun_cache.similarity import Similarity

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1
_RESULT_FILE = "result.json"
_PER_QUERY_FILE = "per_query.parquet"
_KEY_DIGITS = 16


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EvaluatedHead(_Frozen):
    """What a result says of its head.

    ``settings`` is all that the head was made with but its seed: heads with equal settings are seeds of one row.
    """

    name: str
    sha256: str
    arch: str
    init: str | None
    out_dim: int
    seed: int | None
    similarity: Similarity
    settings: dict[str, Any] = {}

    @property
    def is_raw(self) -> bool:
        """Whether this is the raw encoder, which every table has in its first row."""
        return self.arch == "identity"

    @property
    def group(self) -> str:
        """Hash of everything but name, weights and seed."""
        return sha256_json(self.model_dump(mode="json", exclude={"name", "sha256", "seed"}))


def raw_head(dim: int) -> EvaluatedHead:
    """Return the record of the raw encoder of ``dim`` dimensions, scored by cosine."""
    return EvaluatedHead(
        name="identity",
        sha256=sha256_json({"arch": "identity", "dim": dim, "similarity": Similarity.COSINE}),
        arch="identity",
        init=None,
        out_dim=dim,
        seed=None,
        similarity=Similarity.COSINE,
    )


class Setting(_Frozen):
    """What a head is evaluated on. Figures of two heads may be compared if their settings are equal."""

    collection: str
    sample_of: str | None
    split: str
    encoder: str
    model: str
    query_fingerprint: str
    query_content_sha256: str
    passage_fingerprint: str
    passage_content_sha256: str
    qrels_sha256: str
    config: EvalConfig

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        return sha256_json(self.model_dump(mode="json"))


class Result(_Frozen):
    """One head on one collection. ``metrics`` are means over the judged queries, at full precision.

    On a sampled collection every metric's name ends in ``[sample]``.
    """

    schema_version: int = SCHEMA_VERSION
    setting: Setting
    head: EvaluatedHead
    metrics: dict[str, float]
    ndcg_identical_kept: float | None
    counts: Counts
    passages: int
    in_base_training: bool
    seconds: float
    date: str
    versions: dict[str, str]
    machine: dict[str, str | int]
    commit: str | None

    @property
    def key(self) -> str:
        """Name of its folder."""
        return result_key(self.setting, self.head)


def result_key(setting: Setting, head: EvaluatedHead) -> str:
    """Return the key of a result: setting, weights, how they are scored and shown, and the schema of the store."""
    return sha256_json({"schema": SCHEMA_VERSION, "setting": setting.sha256, "head": head.sha256, "group": head.group})[
        :_KEY_DIGITS
    ]


def metric_name(metric: str, sample_of: str | None) -> str:
    """Return the name under which a metric may be shown: one of a sampled corpus is easier, and is called so."""
    return f"{metric}[sample]" if sample_of else metric


@dataclass(frozen=True)
class ResultStore:
    """The results below ``root``. Writing is atomic and never replaces a result that is there."""

    root: Path

    def find(self, key: str) -> Result | None:
        """Return the result of that key, or None."""
        folder = self.root / key
        return self._read(folder) if (folder / _RESULT_FILE).exists() else None

    def all(self) -> list[Result]:
        """Return every result, by collection, then date. Raises EvaluationError if one is damaged."""
        folders = sorted(path.parent for path in self.root.glob(f"[!.]*/{_RESULT_FILE}"))
        return sorted(map(self._read, folders), key=lambda result: (result.setting.collection, result.date, result.key))

    def save(self, result: Result, scores: QueryScores) -> None:
        """Write the result and its per-query scores; both are there, or neither is."""
        import polars as pl

        folder = self.root / result.key
        partial = self.root / f".{result.key}.partial-{os.getpid()}"
        # A killed process of the same number may have left one.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            sample_of = result.setting.sample_of
            columns = {metric_name(metric, sample_of): values for metric, values in scores.values.items()}
            with atomic_file(partial / _PER_QUERY_FILE) as handle:
                pl.DataFrame({"query_id": scores.query_ids, **columns}).write_parquet(handle)
            # Last, because a folder without it is no result.
            write_json(partial / _RESULT_FILE, result.model_dump(mode="json") | {"counts": asdict(result.counts)})
            try:
                partial.rename(folder)
            except OSError:
                if not (folder / _RESULT_FILE).exists():
                    raise
            sync_folder(self.root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def per_query(self, result: Result) -> QueryScores:
        """Return the per-query scores of a result, under the names that its ``metrics`` have."""
        frame = self._per_query_frame(result)
        values = {name: frame[name].to_numpy().astype(np.float64, copy=False) for name in result.metrics}
        return QueryScores(frame["query_id"].to_list(), values)

    def _per_query_frame(self, result: Result) -> pl.DataFrame:
        import polars as pl

        path = self.root / result.key / _PER_QUERY_FILE
        try:
            return pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _damaged(path, error) from None

    def _read(self, folder: Path) -> Result:
        path = folder / _RESULT_FILE
        try:
            return Result.model_validate(json.loads(path.read_bytes()))
        except (ValueError, ValidationError) as error:
            raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> EvaluationError:
    return EvaluationError(
        "a stored result cannot be read",
        where=path,
        found=error,
        fix=f"delete the folder {path.parent.name} and run `ragcun-cache eval` again",
    )


def results_frame(results: Sequence[Result]) -> pl.DataFrame:
    """Return one row a result, as a polars frame: what was evaluated on what, every metric, and the counts."""
    import polars as pl

    rows: list[Mapping[str, Any]] = [
        {
            "key": result.key,
            "collection": result.setting.collection,
            "split": result.setting.split,
            "model": result.setting.model,
            "encoder": result.setting.encoder,
            "head": result.head.name,
            "arch": result.head.arch,
            "init": result.head.init,
            "out_dim": result.head.out_dim,
            "seed": result.head.seed,
            "similarity": str(result.head.similarity),
            **result.metrics,
            **asdict(result.counts),
            "seconds": result.seconds,
            "date": result.date,
            "commit": result.commit,
        }
        for result in results
    ]
    return pl.from_dicts(rows, infer_schema_length=None) if rows else pl.DataFrame()
