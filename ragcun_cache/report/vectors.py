"""The commands that make the vectors of a report again, by what caches, heads and collections say of themselves."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ragcun_cache.cache import list_caches
from ragcun_cache.cache.command import encode_options, import_command
from ragcun_cache.collections.collection import read_record
from ragcun_cache.collections.locate import collections_on_disk
from ragcun_cache.collections.origin import sample_name
from ragcun_cache.collections.pydocs import PYDOCS
from ragcun_cache.collections.registry import REGISTRY
from ragcun_cache.encoder.config import DEFAULT_MODEL
from ragcun_cache.errors import CollectionError
from ragcun_cache.evaluation.results import Result
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.role import Role


class Datasets:
    """How the collections of a report were named to the commands that worked with them.

    A result knows a collection by its name alone. That of a folder may lead nowhere, but a head that was trained on it
    has its path.
    """

    def __init__(self, records: Iterable[HeadRecord], home: Home) -> None:
        self._folders = collections_on_disk(home)
        self._given: dict[str, list[str]] = {}
        for record in records:
            train, name = record.provenance.get("train"), _caches(record).get("collection")
            # That of an adapter of tune does not say how its collection was found.
            if name and train and "dataset" in train:
                pairs, seed = train.get("pairs"), train.get("pairs_seed", 0)
                # The pairs of a sample may have been found in the vectors of the whole.
                sampled = pairs is not None and name.endswith(sample_name("", pairs, seed))
                self._given.setdefault(name, _dataset(train["dataset"], pairs if sampled else None, seed))

    def encode_arguments(self, name: str) -> list[str]:
        """Return what ``encode`` is given to find, or draw, the collection that caches call ``name``."""
        if name in self._given:
            return self._given[name]
        record = self._record(name)
        if record.get("sample_of"):
            return _dataset(record["sample_of"], record.get("pairs"), record.get("seed", 0))
        return _dataset(name, None, 0)

    def path(self, name: str) -> str:
        """Return what any other command is given: a path for a folder that no name leads to, else the name."""
        return self._given[name][1] if len(self._given.get(name, ())) == 2 else name

    def before(self, name: str) -> list[str]:
        """Return the lines that must stand before the collection is used: how it is made, or what to put for it."""
        if titles_of := self._record(name).get("titles_of"):
            whole = ["--whole"] if self._record(name).get("whole") else []
            return [shlex.join(["ragcun-cache", "collections", "titles", titles_of, *whole])]
        if not {name} & {*self._given, *self._folders, *REGISTRY, PYDOCS}:
            return [comment(f"{name} was a folder, and no name leads to it now: put its path in place of the name")]
        return []

    def _record(self, name: str) -> dict[str, Any]:
        with suppress(CollectionError):
            return read_record(self._folders[name]) if name in self._folders else {}
        return {}


def vector_commands(
    results: Iterable[Result], records: Iterable[HeadRecord], datasets: Datasets, home: Home
) -> list[str]:
    """Return a command for every pair of caches that results and heads are made from; a comment where there is none.

    A fingerprint stands for a spec, so any cache below ``home`` that bears it says how its vectors were made.
    """
    specs = {manifest.fingerprint: manifest.spec for _, manifest in list_caches(home.caches)}
    wanted: dict[tuple[str, str, str], str] = {}
    for result in results:
        one = result.setting
        wanted.setdefault((one.collection, one.query_fingerprint, one.passage_fingerprint), one.model)
    for record in records:
        caches = _caches(record)
        if {"collection", *Role} <= caches.keys():
            key = (caches["collection"], *(caches[role]["fingerprint"] for role in (Role.QUERY, Role.PASSAGE)))
            wanted.setdefault(key, str(record.provenance.get("encoder_model")))
    lines: dict[str, None] = {}
    for (name, query, passage), model in wanted.items():
        known = {role: specs[one] for role, one in ((Role.QUERY, query), (Role.PASSAGE, passage)) if one in specs}
        lines |= dict.fromkeys([*datasets.before(name), *_commands(name, model, known, datasets, home)])
    return list(lines)


def comment(text: str) -> str:
    """Return a shell comment, on one line whatever names and prompts there are in it."""
    return f"# {' '.join(text.split())}"


def _caches(record: HeadRecord) -> dict[str, Any]:
    return record.provenance.get("caches") or {}


def _dataset(dataset: str, pairs: int | None, seed: int) -> list[str]:
    return ["--dataset", dataset, *([] if pairs is None else ["--pairs", str(pairs), "--seed", str(seed)])]


def _commands(
    name: str, model: str, specs: Mapping[Role, Mapping[str, Any]], datasets: Datasets, home: Home
) -> list[str]:
    if any(spec.get("backend") == "imported" for spec in specs.values()):
        dataset = datasets.path(name)
        imports = [import_command(dataset, role, spec) for role, spec in specs.items()]
        return [comment(f"not encoded, but imported: {one}") for one in imports]
    lines, options = [], _model_options(model, home)
    if "--model-id" in options:
        lines.append(comment(f"{model}: --model is its name on the hub, or its folder"))
    if not specs:
        lines.append(comment(f"{name}: no cache is left to say by which options {model} encoded it, or if it did"))
    options += encode_options(specs)
    return [*lines, shlex.join(["ragcun-cache", "encode", *datasets.encode_arguments(name), *options])]


def _model_options(model: str, home: Home) -> list[str]:
    """Return the options that name the model. A model that is not below ``models/`` may have been a folder anywhere."""
    if model == DEFAULT_MODEL:
        return []
    below_models = (home.models / model / "modules.json").exists()
    return ["--model", model, *([] if below_models else ["--model-id", model])]
