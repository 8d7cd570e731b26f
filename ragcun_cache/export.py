"""What an exported head needs beside its weights: the encoder that it was trained on, and what it scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragcun_cache.cache import Manifest, list_caches
from ragcun_cache.cache.manifest import spec_differences
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.errors import HeadError
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads.card import Score
from ragcun_cache.heads.export import BaseModel
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.retrieval.index import FLAT
from ragcun_cache.role import Role


def base_model(record: HeadRecord, model: str | None, home: Home) -> tuple[str, BaseModel]:
    """Return the name of the encoder that the head was trained on, and it, compared with the caches that it made.

    ``model`` says where it is; None: wherever the name that the caches carry leads to.

    Raises:
        HeadError: no cache of that encoder is here to say what it was, or the model is another.

    """
    encoder = record.provenance.get("encoder")
    specs = _specs(record, [found for _, found in list_caches(home.caches) if found.encoder == encoder])
    if len(specs) < len(Role) or any(spec.get("backend") == "imported" for spec in specs.values()):
        raise HeadError(
            f"the encoder of {record.name} is not known here",
            where=home.caches,
            expected=f"the caches that encoder {encoder} made for it",
            found="imported vectors" if specs else "none",
        )
    model_id = str(next(iter(specs.values()))["model_id"])
    weights = find_weights(model or model_id, home, model_id)
    for role, spec in specs.items():
        config = EncodeConfig.of_spec(spec, weights.model_id)
        if differences := spec_differences(spec, EncoderSpec.of(weights, role, config).to_dict()):
            raise HeadError(
                "this is not the model that the head was trained on (cached → given)",
                where=weights.folder,
                found="; ".join(differences),
                fix="name the model with --model",
            )
    length = int(next(iter(specs.values()))["max_seq_length"])
    prompts = {role: str(spec["prompt"]) for role, spec in specs.items()}
    return weights.model_id, BaseModel(weights.folder, length, prompts)


def _specs(record: HeadRecord, caches: Sequence[Manifest]) -> dict[Role, dict[str, Any]]:
    """Return the specs of the caches that the head was trained on, of all of its encoder where it does not say so.

    Raises:
        HeadError: it does not say so, and they differ in their prompts.

    """
    own = record.provenance.get("caches") or {}
    fingerprints = {role: one["fingerprint"] for role, one in own.items() if isinstance(one, dict)}
    specs: dict[Role, dict[str, Any]] = {}
    for found in caches:
        if found.fingerprint != fingerprints.get(found.role, found.fingerprint):
            continue
        if found.spec != specs.setdefault(found.role, found.spec):
            raise HeadError(
                f"the {found.role} prompt that {record.name} was trained with is not known",
                expected="caches with one prompt, as the head does not say which it was trained on",
                found=" and ".join(repr(one.get("prompt")) for one in (specs[found.role], found.spec)),
            )
    return specs


def scores(record: HeadRecord, home: Home) -> list[Score]:
    """Return what the results store knows of the head by exact search, beside the raw encoder in the same setting.

    One figure a split: the newest, where the collection has been another or was evaluated in another way before.
    """
    exact = [result for result in ResultStore(home.results).all() if result.setting.config.index == FLAT]
    raw = {result.setting.sha256: result for result in exact if result.system.is_raw}
    own = sorted((result for result in exact if result.system.sha256 == record.sha256), key=lambda one: one.date)
    newest = {f"{result.setting.collection}/{result.setting.split}": result for result in own}
    found = []
    for place, result in sorted(newest.items()):
        beside = raw.get(result.setting.sha256)
        metric, value = next(iter(result.metrics.items()))
        found.append(Score(place, metric, value, None if beside is None else beside.metrics[metric], result.route))
    return found
