"""The files of an exported model, as releases of sentence-transformers before 6 read them too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragcun_cache.encoder.spec import TOKENIZER_FILES

_TRANSFORMER = "sentence_bert_config.json"
_MAX_LENGTH = "max_seq_length"
# Of sentence_transformers.models in releases 3 to 5, what can be part of a text encoder or of a head. Release 6 knows
# these names as those of the models on the hub.
_CLASSIC_MODULES = frozenset({"Dense", "LayerNorm", "Normalize", "Pooling", "Router", "StaticEmbedding", "Transformer"})
_DENSE_FIELDS = ("in_features", "out_features", "bias", "activation_function")


def write_classic_layout(folder: Path, encoder: Path, max_seq_length: int) -> None:
    """Rewrite what sentence-transformers saved in ``folder``, so that older releases load it, and newer ones as before.

    Modules go by the names that all releases know. What says how the encoder tokenises and pools is copied from
    the folder ``encoder``, if that is in the old form, as models on the hub are: a release that loads the encoder then
    loads the export. Heads need release 3, a ``Router`` needs 5.
    """
    _edit(folder / "modules.json", lambda modules: [{**one, "type": _classic(one["type"])} for one in modules])
    for router in folder.rglob("router_config.json"):
        _edit(router, _classic_router)
    for dense in folder.rglob("*Dense/config.json"):
        _edit(dense, _classic_dense)
    if _MAX_LENGTH not in _read(encoder / _TRANSFORMER, {}):
        return
    for name in (*TOKENIZER_FILES, _TRANSFORMER):
        if (encoder / name).exists():
            shutil.copyfile(encoder / name, folder / name)
    _edit(folder / _TRANSFORMER, lambda config: {**config, _MAX_LENGTH: max_seq_length})
    # Matched by kind, not by place: the export has no Normalize of the encoder's, and modules of its own.
    for theirs, ours in zip(_pooling_configs(encoder), _pooling_configs(folder), strict=False):
        shutil.copyfile(theirs, ours)


def _pooling_configs(folder: Path) -> list[Path]:
    modules = _read(folder / "modules.json", [])
    return [folder / one["path"] / "config.json" for one in modules if _name(one["type"]) == "Pooling"]


def _name(module_type: str) -> str:
    return module_type.rpartition(".")[2]


def _classic(module_type: str) -> str:
    """Return where every release finds a module of this name; one that older releases lack stays where it is."""
    name = _name(module_type)
    return f"sentence_transformers.models.{name}" if name in _CLASSIC_MODULES else module_type


def _classic_dense(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in _DENSE_FIELDS or value != "sentence_embedding"}


def _classic_router(config: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in config["parameters"].items() if name != "route_mappings" or value}
    types = {name: _classic(module_type) for name, module_type in config["types"].items()}
    return {**config, "types": types, "parameters": known}


def _read(path: Path, absent: Any) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else absent


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_bytes())), indent=2) + "\n", encoding="utf-8")
