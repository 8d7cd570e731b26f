"""What a tuning found, as a file: every system that was tried, the one that was chosen, and its results by key."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ragcun_cache.cache import CachePair
from ragcun_cache.files import sha256_json, write_json
from ragcun_cache.provenance import library_versions, machine, source_commit
from ragcun_cache.tuning.config import TuneConfig
from ragcun_cache.tuning.spec import Spec

_log = logging.getLogger(__name__)


class Tried(BaseModel):
    """A system in words, the family that it is of (``Spec.family``), and its NDCG@10 on dev."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    family: str
    dev_ndcg: float


class TuningRecord(BaseModel):
    """One tuning. ``trials`` are all systems that were tried on dev, the raw encoder first.

    ``name`` is that of its file (``tuning_name``). ``raw`` and ``winner`` are keys of results; ``winner`` is None where
    the raw encoder was kept. ``head`` is the name of the adapter that was saved, if there is one. ``made_from`` stands
    for the code and data that it was made by (``Task.made_from``); None in records from before there was one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    config: TuneConfig
    collection: str
    encoder: str
    trials: list[Tried]
    spec: Spec
    dev_ndcg: float | None
    dev_queries: int
    chosen_by: list[str]
    left_out: list[str]
    raw: str
    winner: str | None
    head: str | None
    seconds: float
    date: str
    versions: dict[str, str]
    machine: dict[str, str | int]
    commit: str | None
    made_from: str | None = None

    def save(self, folder: Path) -> None:
        """Write it into ``folder``, in place of what the same tuning found before."""
        write_json(folder / f"{self.name}.json", self.model_dump(mode="json"))


def tuning_name(config: TuneConfig, pair: CachePair) -> str:
    """Return what a tuning is called: by what was asked for, of which vectors of which texts.

    An encoder that is named, since several are cached, gives the same name as one that goes without saying.
    """
    asked = config.model_copy(update={"encoder": None}).model_dump(mode="json")
    prompts = [cache.manifest.spec.get("prompt") for cache in (pair.query, pair.passage)]
    vectors = [pair.encoder, pair.query.content_sha256, pair.passage.content_sha256, *(prompts if any(prompts) else [])]
    asked_sha256 = sha256_json([*vectors, asked])
    return f"{pair.collection.replace('/', '__')}-{config.labels}-seed{config.seed}-{asked_sha256[:8]}"


def provenance() -> dict[str, object]:
    """Return when, where and by which code a tuning that ends now was made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "machine": machine(),
        "commit": source_commit(),
    }


def list_tunings(folder: Path) -> list[TuningRecord]:
    """Return all that can be read, by name; others are named in a warning and passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if (record := _read(path)) is not None:
            found.append(record)
    return found


def read_tuning(folder: Path, name: str) -> TuningRecord | None:
    """Return the tuning of that name; None if there is none, or none that can be read, of which a warning tells."""
    path = folder / f"{name}.json"
    return _read(path) if path.exists() else None


def _read(path: Path) -> TuningRecord | None:
    try:
        return TuningRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        _log.warning("%s is no record of a tuning: %s", path, error.errors()[0]["msg"])
        return None
