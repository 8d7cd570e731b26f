"""Where the vectors and the heads behind results come from, in words, as far as caches and heads are here to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragcun_cache.cache import list_caches
from ragcun_cache.errors import HeadError
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.system import System
from ragcun_cache.heads.store import RECORD_NAME, read_record
from ragcun_cache.home import Home


def made(spec: Mapping[str, Any]) -> str:
    """Return how the vectors of a cache were made, by the spec of its manifest: backend, precision, other settings."""
    precision = f"precision {spec.get('precision') or 'unknown'}"
    if spec.get("backend") == "imported":
        words = ["vectors imported from elsewhere", precision]
    else:
        words = ["encoded by ragcun-cache", f"backend {spec.get('backend') or 'unknown'}", precision]
    return ", ".join([*words, *(f"{name}: {value}" for name, value in (spec.get("settings") or {}).items())])


def listed(content: Mapping[str, Any]) -> str:
    """Return what a result says of its machine, or of its versions, on one line."""
    return ", ".join(f"{key} {value}" for key, value in content.items())


def encoders(results: Sequence[Result], home: Home) -> list[str]:
    """Return a line for each encoder of the results: model, fingerprint, and how its vectors were made.

    A result does not say that, but the fingerprint stands for it: any cache below ``home`` that bears it knows.
    """
    specs = {manifest.encoder: manifest.spec for _, manifest in list_caches(home.caches)}
    found = dict.fromkeys((result.setting.model, result.setting.encoder) for result in results)
    return [
        f"{model}, fingerprint {encoder}: "
        + (made(specs[encoder]) if encoder in specs else "backend and precision unknown (no cache of it is left)")
        for model, encoder in found
    ]


def training(results: Sequence[Result], home: Home) -> list[str]:
    """Return a line for each set of judgements that systems of the results have seen: splits, number, the systems.

    The number of pairs is that of the head's record, or, where the head is not below ``home``, of its settings.
    """
    pairs = _train_pairs(home)
    found: dict[str, dict[str, None]] = {}
    for system in {result.system.sha256: result.system for result in results}.values():
        if system.trained_on:
            found.setdefault(_seen(system, pairs), {})[system.label] = None
    return [f"{seen} ({'; '.join(labels)})" for seen, labels in found.items()]


def _seen(system: System, pairs: Mapping[str, int]) -> str:
    settings = system.settings
    parts = [", ".join(f"{one.collection}/{one.split}" for one in system.trained_on)]
    if "labels" in settings:
        # Of ``tune``: what it tries learns from queries or is only chosen by them, so no number of pairs holds for all.
        parts += [f"{settings['train_queries']:,} of the queries"] if settings.get("train_queries") else []
        parts += ["each query with another's passages"] if settings.get("shuffled") else []
    else:
        count = pairs.get(system.sha256, settings.get("pairs"))
        parts.append("number of pairs unknown" if count is None else f"{count:,} pairs")
    return ", ".join(parts)


def _train_pairs(home: Home) -> dict[str, int]:
    """Return the number of pairs that every head below ``home`` was trained on, by the sha256 of the head."""
    found: dict[str, int] = {}
    for path in home.heads.glob(f"*/{RECORD_NAME}"):
        try:
            record = read_record(path.parent)
        except HeadError:
            continue
        if (count := record.provenance.get("train_pairs")) is not None:
            found[record.sha256] = int(count)
    return found
