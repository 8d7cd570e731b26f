"""A result: one system on one split of one collection, and the key that names it by all that the figure depends on."""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import BaseModel, ConfigDict

from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.system import Cost, Route, System
from ragcun_cache.files import sha256_json
from ragcun_cache.retrieval.index import FLAT

SCHEMA_VERSION = 2
_KEY_DIGITS = 16


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Setting(_Frozen):
    """What a system is evaluated on. Figures of two systems may be compared if their settings are equal."""

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

    @property
    def vectors(self) -> str:
        """What ``open_pair`` takes for its caches."""
        return f"{self.encoder}+{self.query_fingerprint}+{self.passage_fingerprint}"

    @property
    def eval_command(self) -> str:
        """The command that evaluates on it, where its collection is found by its name."""
        return shlex.join(
            ["ragcun-cache", "eval", "--dataset", self.collection, "--split", self.split, "--encoder", self.vectors]
            + ([] if self.config.index == FLAT else ["--index", self.config.index])
        )


class SeenGold(_Frozen):
    """How much of the test a system that was trained on the same collection had seen.

    A judged query is ``seen`` if one of its relevant passages was relevant to a query of the training split, else
    ``unseen``; ``metrics`` are means over the two kinds, none for a kind without queries. ``repeated`` judged queries
    have the id or the (normalised) text of a training query.
    """

    seen: int
    unseen: int
    repeated: int
    seen_metrics: dict[str, float]
    unseen_metrics: dict[str, float]


class AgainstExact(_Frozen):
    """What an approximate index costs: share of the exact top 10 that it finds, and its NDCG@10 minus the exact one."""

    recall: float
    ndcg_difference: float


class Result(_Frozen):
    """One system on one collection. ``metrics`` are means over the judged queries, at full precision.

    On a sampled collection every metric's name ends in ``[sample]``. ``seen_gold`` is None unless the system was
    trained on the collection, ``against_exact`` unless the index is approximate.
    """

    schema_version: int = SCHEMA_VERSION
    setting: Setting
    system: System
    metrics: dict[str, float]
    ndcg_identical_kept: float | None
    counts: Counts
    seen_gold: SeenGold | None = None
    against_exact: AgainstExact | None = None
    cost: Cost | None = None
    passages: int
    in_base_training: bool
    seconds: float
    date: str
    versions: dict[str, str]
    machine: dict[str, str | int]
    commit: str | None

    @property
    def key(self) -> str:
        """Name of its files."""
        return result_key(self.setting, self.system)

    def content(self) -> dict[str, Any]:
        """Return all of it as JSON content."""
        return self.model_dump(mode="json")

    @property
    def route(self) -> Route | None:
        """Whether judgements of this collection had a part in the system; None if no judgement at all had."""
        return route_of(self.system, self.setting.collection, self.setting.sample_of)


def result_key(setting: Setting, system: System) -> str:
    """Return the key of a result: setting, weights, how they are scored and shown, and the schema of the store."""
    identity = {
        "schema": SCHEMA_VERSION,
        "setting": setting.sha256,
        "system": system.sha256,
        "group": system.group,
    }
    return sha256_json(identity)[:_KEY_DIGITS]


def trained_splits(system: System, collection: str, sample_of: str | None) -> list[str]:
    """Return the splits of this collection, or of what it was sampled from, whose judgements the system has seen."""
    return [one.split for one in system.trained_on if one.collection in (collection, sample_of)]


def route_of(system: System, collection: str, sample_of: str | None) -> Route | None:
    """Return the route of ``system`` on a collection.

    Raises:
        EvaluationError: it calls itself zero-shot and was trained on that very collection.

    """
    if trained_splits(system, collection, sample_of):
        if system.route == "zero-shot":
            raise EvaluationError(
                f"{system.name} is called zero-shot and was trained or chosen by judgements of {collection}",
                expected="route in-domain, or None: it follows from trained_on",
                found=", ".join(f"{one.collection}/{one.split}" for one in system.trained_on),
            )
        return "in-domain"
    return system.route or ("zero-shot" if system.trained_on else None)


def metric_name(metric: str, sample_of: str | None) -> str:
    """Return the name under which a metric may be shown: one of a sampled corpus is easier, and is called so."""
    return f"{metric}[sample]" if sample_of else metric
