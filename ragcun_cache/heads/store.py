"""Heads on disk: ``head.safetensors`` (the weights that retrieval needs) and ``head.json`` (all about them)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ragcun_cache.errors import HeadError
from ragcun_cache.files import atomic_file, write_json
from ragcun_cache.heads.config import HeadConfig, is_own
from ragcun_cache.heads.own import own_archs

if TYPE_CHECKING:
    from torch import Tensor

    from ragcun_cache.heads.head import Head

WEIGHTS_NAME = "head.safetensors"
RECORD_NAME = "head.json"
_SCHEMA = 1
_REMOVE = "`ragcun-cache heads rm NAME --delete`, then train it again"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadRecord:
    """What ``head.json`` says of a head.

    ``sha256`` covers the weights and whatever else the scores depend on. ``provenance`` has ``train`` (the training
    config), ``encoder`` (the fingerprint that the caches share), ``encoder_model``, ``caches``, ``train_pairs``,
    ``seed``, ``versions``, ``commit``, ``metrics`` (the row of the epoch that the weights are from), ``epoch`` (its
    number), ``epochs`` and ``complete``.
    """

    name: str
    folder: Path
    config: HeadConfig
    sha256: str
    provenance: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether training came to its end."""
        return bool(self.provenance.get("complete"))


@dataclass(frozen=True)
class SavedHead(HeadRecord):
    """A record with the head itself, in evaluation mode on the CPU."""

    head: Head


def _head_sha256(config: HeadConfig, weights: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(config.scoring_sha256().encode())
    if (source := provenance.get("arch_source_sha256")) is not None:
        # With equal weights other code ranks otherwise, and another seed gives other tensors that are not saved.
        digest.update(f"{source} {provenance.get('seed')}\n".encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def save_head(folder: Path, head: Head, provenance: dict[str, Any]) -> HeadRecord:
    """Write what retrieval needs of ``head``, and its record, into ``folder``, each file atomically.

    Parts that only training needs (a predictor, an EMA target) are left out; of a head of the user's own, nothing is.
    """
    from safetensors.torch import save

    from ragcun_cache.heads.registry import build_empty_head

    state = head.state_dict()
    names = state if is_own(head.config.arch) else build_empty_head(head.config).state_dict()
    weights = {name: state[name].detach().cpu().contiguous() for name in names}
    record = HeadRecord(folder.name, folder, head.config, _head_sha256(head.config, weights, provenance), provenance)
    with atomic_file(folder / WEIGHTS_NAME) as handle:
        handle.write(save(weights))
    return _write_record(record)


def rewrite_record(folder: Path, provenance: dict[str, Any]) -> HeadRecord:
    """Give the head in ``folder`` another provenance; its weights stay. Raises HeadError if there is none."""
    return _write_record(replace(read_record(folder), provenance=provenance))


def _write_record(record: HeadRecord) -> HeadRecord:
    about = {"schema": _SCHEMA, "sha256": record.sha256, "config": record.config.model_dump(mode="json")}
    write_json(record.folder / RECORD_NAME, {**about, **record.provenance})
    return record


def read_record(folder: Path) -> HeadRecord:
    """Read ``head.json`` of a head's folder, without its weights. Raises HeadError if it is absent or damaged."""
    path = folder / RECORD_NAME
    try:
        content = json.loads(path.read_bytes())
        if content.pop("schema") != _SCHEMA:
            raise HeadError(
                "the head was written by another version", where=path, expected=f"schema {_SCHEMA}", fix=_REMOVE
            )
        config = HeadConfig.model_validate(content.pop("config"))
        return HeadRecord(folder.name, folder, config, content.pop("sha256"), content)
    except FileNotFoundError:
        raise HeadError("there is no head here", where=folder, fix="ragcun-cache heads ls") from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise HeadError("the head's record cannot be read", where=path, found=error, fix=_REMOVE) from error


def edited_since(record: HeadRecord) -> HeadError | None:
    """Return the error that the code of a head of the user's own is not that which it was trained with, or None.

    None too where the record or the registry knows nothing of the file. Raises HeadError as ``own_archs``.
    """
    trained_with = record.provenance.get("arch_source_sha256")
    own = own_archs().get(str(record.config.arch)) if trained_with is not None else None
    if own is None or own.source_sha256 == trained_with:
        return None
    return HeadError(
        f"the file that registers {record.config.arch} was edited since head {record.name} was trained",
        where=record.folder,
        expected=f"a file of sha256 {trained_with}",
        found="no file" if own.source_sha256 is None else f"sha256 {own.source_sha256}",
        fix="restore the file, or train again",
    )


def load_head(folder: Path) -> SavedHead:
    """Load the head in ``folder``, for retrieval.

    Raises HeadError if there is none, if weights are missing, unexpected or of another shape than the config says,
    if they are not the weights that ``head.json`` was written for, or if the code of a head of the user's own is not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ragcun_cache.heads.registry import build_empty_head

    record = read_record(folder)
    if (edited := edited_since(record)) is not None:
        raise edited
    path = folder / WEIGHTS_NAME
    try:
        weights = load(path.read_bytes())
    except FileNotFoundError:
        raise HeadError("the head's weights are missing", where=path) from None
    except SafetensorError as error:
        raise HeadError("the head's weights cannot be read", where=path, found=error) from error
    head = build_empty_head(record.config, seed=record.provenance.get("seed", 0))
    expected = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in head.state_dict().items()}
    found = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise HeadError(
                f"the head's weights do not fit its config, at {name}",
                where=path,
                expected=expected.get(name, "no such tensor"),
                found=found.get(name, "no such tensor"),
            )
    # Heads of the user's own were once known by their weights alone.
    known_by = [_head_sha256(record.config, weights, about) for about in (record.provenance, {})]
    if record.sha256 not in known_by:
        raise HeadError(
            "the head's weights are not those that its record was written for",
            where=path,
            expected=f"sha256 {record.sha256}",
            fix="run the same train-head command again: it resumes",
        )
    head.load_state_dict(weights, strict=True, assign=True)
    head.requires_grad_(False).eval()
    return SavedHead(record.name, folder, record.config, record.sha256, record.provenance, head)


def list_heads(heads: Path) -> list[HeadRecord]:
    """Read the record of every head below ``heads``, by name.

    Folders without a record are passed over, and those with a damaged one logged.
    """
    found = []
    for path in sorted(heads.glob(f"*/{RECORD_NAME}")):
        try:
            found.append(read_record(path.parent))
        except HeadError as error:
            _log.warning("a head is left out: %s", error)
    return found


def unreadable_heads(heads: Path) -> list[Path]:
    """Return the folders below ``heads``, by name, whose record is damaged or was written by another version."""
    found = []
    for path in sorted(heads.glob(f"*/{RECORD_NAME}")):
        try:
            read_record(path.parent)
        except HeadError:
            found.append(path.parent)
    return found
