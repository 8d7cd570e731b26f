"""Which heads are evaluated: those that are named, or all that fit the vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.origin import judged_places, sample_name
from ragcun_cache.errors import EvaluationError, RagcunCacheError, unknown_choice
from ragcun_cache.evaluation.subject import Encode, Subject
from ragcun_cache.evaluation.system import Cost, System, TrainedOn, raw_head
from ragcun_cache.files import sha256_json
from ragcun_cache.heads.config import Arch
from ragcun_cache.heads.store import (
    RECORD_NAME,
    WEIGHTS_NAME,
    HeadRecord,
    edited_since,
    list_heads,
    load_head,
    read_record,
)
from ragcun_cache.home import Home
from ragcun_cache.role import Role

CHOSEN_BY_SEARCH = "chosen_by_search"
"""Where the record of a head says that a search chose its settings by its dev queries, and which."""


def named_heads(names: Sequence[str], heads: Path) -> list[HeadRecord]:
    """Return the heads that ``names`` stand for, each once, in that order.

    A name is a run below ``heads``, a pattern of such (``*lejepa*seed[0-4]*``), or any folder with a head.

    Raises:
        EvaluationError: nothing is called that; the error names what there is.
        HeadError: the record of a head that is named, by no pattern, is damaged.

    """
    known = {record.name: record for record in list_heads(heads)}
    found: dict[Path, HeadRecord] = {}
    for name in names:
        matching = [record for known_name, record in known.items() if name in (known_name, str(record.folder))]
        # Below heads that is a damaged one, or it were known: to read it says so.
        for folder in (heads / name, Path(name)):
            if not matching and (folder / RECORD_NAME).exists():
                matching = [read_record(folder)]
        if not matching:
            matching = [record for known_name, record in known.items() if fnmatchcase(known_name, name)]
        if not matching:
            raise unknown_choice("head", name, known, where=heads, error=EvaluationError)
        found.update((record.folder.resolve(), record) for record in matching)
    return list(found.values())


def misfit(record: HeadRecord, pair: CachePair) -> RagcunCacheError | None:
    """Return why ``record`` cannot be evaluated on the vectors of ``pair``, or None if it can.

    Raises HeadError if the files of the user's own heads are needed to know and cannot be run.
    """
    if record.config.in_dim != pair.passage.dim:
        return EvaluationError(
            f"head {record.name} does not fit the vectors of {pair.collection}",
            where=record.folder,
            expected=f"{record.config.in_dim} dimensions",
            found=f"{pair.passage.dim} dimensions",
        )
    encoder = record.provenance.get("encoder")
    if encoder != pair.encoder:
        return EvaluationError(
            f"head {record.name} was trained on another encoder than that of the vectors of {pair.collection}",
            where=record.folder,
            expected=f"encoder {encoder}",
            found=f"encoder {pair.encoder} ({pair.passage.manifest.spec.get('model_id')})",
            fix="choose the caches with --encoder FINGERPRINT",
        )
    return edited_since(record)


def choose_heads(
    names: Sequence[str] | None, subjects: Sequence[Subject], home: Home
) -> tuple[list[list[HeadRecord]], list[str]]:
    """Return the heads to evaluate on each subject, and why others are not among them, a sentence each.

    ``names`` are as those of ``named_heads``; None: every head in ``home`` whose training came to its end, where it
    fits and has not seen the judgements. The identity head is never among them.

    Raises:
        EvaluationError: a head that is named does not fit or has seen the judgements, or see ``named_heads``.
        HeadError: see ``misfit``.

    """
    if names is None:
        found = list_heads(home.heads)
    else:
        found = named_heads([name for name in names if name != Arch.IDENTITY], home.heads)
    found = [record for record in found if record.config.arch != Arch.IDENTITY]
    records = [record for record in found if record.complete or names is not None]
    left_out = [f"the training of {one.name} did not end" for one in found if names is None and not one.complete]
    chosen: list[list[HeadRecord]] = []
    for subject in subjects:
        chosen.append([])
        for record in records:
            problem = misfit(record, subject.pair) or subject.refusal(describe_head(record, home))
            if problem is None:
                chosen[-1].append(record)
            elif names is None:
                left_out.append(problem.problem)
            else:
                raise problem
    return chosen, left_out


def describe_head(record: HeadRecord, home: Home) -> System:
    """Return what a result says of the head; seeds of one config and code share all but name, weights and seed.

    ``home`` is where the collection that it was trained on is looked for, to see whether it is a sample of another.
    """
    if record.config.arch == Arch.IDENTITY:
        return raw_head(record.config.in_dim)
    train = record.provenance.get("train") or record.config.model_dump(mode="json")
    # Where it was computed, and what is said elsewhere, makes no other head.
    settings = {key: value for key, value in train.items() if key not in {"seed", "device", "encoder"}}
    settings["train_caches"] = sha256_json(record.provenance.get("caches"))[:8]
    if "dataset" in train:
        # A result names no folder of a user's.
        settings["dataset"] = _collection(record).removesuffix(_sample_suffix(train))
    if source := record.provenance.get("arch_source_sha256"):
        settings["arch_source"] = source[:8]
    if not record.complete:
        settings["stopped_after_epoch"] = record.provenance.get("epoch")
    return System(
        name=record.name,
        sha256=record.sha256,
        arch=str(record.config.arch),
        init=str(record.config.init),
        out_dim=record.config.out_dim,
        seed=record.provenance.get("seed"),
        similarity=record.config.similarity,
        settings=settings,
        code=record.provenance.get("code"),
        trained_on=_trained_on(record, home),
    )


def _trained_on(record: HeadRecord, home: Home) -> tuple[TrainedOn, ...]:
    """Return the splits that a head was trained on and, if its epoch or its settings were chosen on dev, that too."""
    train = record.provenance.get("train") or {}
    collection = _collection(record)
    learnt = bool(record.provenance.get("train_pairs") and train.get("epochs"))
    searched = CHOSEN_BY_SEARCH in record.provenance
    if not collection or not (learnt or searched):
        return ()
    # The vectors of a sample may be those of the whole, and are then called so.
    collection = collection.removesuffix(_sample_suffix(train)) + _sample_suffix(train)
    splits = [str(train["train"])] if learnt else []
    if searched or train.get("select") in ("best_dev", "dev_loss"):
        # Heads of before this was recorded say only what was asked for. What no split names was cut from train.
        dev = record.provenance.get("dev_split", train.get("dev"))
        splits.append(dev if isinstance(dev, str) else str(train["train"]))
    return trained_on(collection, splits, home)


def _collection(record: HeadRecord) -> str:
    """Return the name of the collection whose vectors a head was trained on; empty if its record does not say."""
    return str((record.provenance.get("caches") or {}).get("collection") or "")


def _sample_suffix(train: Mapping[str, Any]) -> str:
    """Return what the name of the pairs that a head was trained on ends with; nothing if they are no sample."""
    return "" if train.get("pairs") is None else sample_name("", train["pairs"], train["pairs_seed"])


def trained_on(collection: str, splits: Iterable[str], home: Home) -> tuple[TrainedOn, ...]:
    """Return what a system knows that was trained or chosen by these splits of a collection: see ``judged_places``."""
    return tuple(TrainedOn(collection=name, split=split) for name, split in judged_places(collection, splits, home))


def head_cost(record: HeadRecord) -> Cost:
    """Return what the head took to train, as its epochs were timed, and what it keeps."""
    import polars as pl
    from safetensors import SafetensorError, safe_open

    weights, epochs = record.folder / WEIGHTS_NAME, record.folder / "metrics.parquet"
    try:
        seconds = float(pl.read_parquet(epochs, columns=["train_seconds"])["train_seconds"].sum())
    except (OSError, pl.exceptions.PolarsError):
        seconds = None
    try:
        with safe_open(weights, framework="numpy") as tensors:
            parameters = sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        size = weights.stat().st_size
    except (OSError, SafetensorError):
        return Cost(seconds=seconds)
    return Cost(seconds=seconds, parameters=parameters, bytes=size)


def head_encoder(record: HeadRecord, device: str) -> Callable[[], Encode]:
    """Return a function that loads the head at its first call, and gives the same loaded head ever after."""
    loaded: list[Encode] = []

    def load() -> Encode:
        if not loaded:
            from ragcun_cache.device import resolve_device
            from ragcun_cache.heads.apply import apply_head

            head, place = load_head(record.folder).head, resolve_device(device)

            def encode(
                vectors_nd: NDArray[np.float32], norms_n: NDArray[np.float32], role: Role
            ) -> NDArray[np.float32]:
                return apply_head(head, vectors_nd, role, norms_n=norms_n, device=place)

            loaded.append(encode)
        return loaded[0]

    return load
