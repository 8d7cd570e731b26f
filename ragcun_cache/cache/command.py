"""The commands that make vectors like those of a cache, by what its manifest says of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.role import Role

_OPTIONS = {
    "backend": ("--backend", None),
    "precision": ("--precision", None),
    "storage_dtype": ("--storage-dtype", "float16"),
    "max_seq_length": ("--max-seq-length", None),
}
"""Field of a spec → the option of ``encode`` that sets it, and its default; None: it depends on machine or model."""
_OWN = {"all-mpnet-base-v2": {"max_seq_length": 384, "prompt": ""}}
"""What the model that ``encode`` takes by itself says of itself, so that no option need say it."""
_PROMPTS = {Role.QUERY: "--query-prompt", Role.PASSAGE: "--passage-prompt"}


def encode_command(
    dataset: str, like: Sequence[Manifest], roles: Sequence[Role] = tuple(Role), part: str | None = None
) -> str:
    """Return the command that makes vectors of ``roles``, by the encoder of the last of ``like`` if there is one.

    Prompts are those of the last of each role that this encoder has among ``like``; of a role that it has not, the
    model's own. A manifest does not know where its model was: that may have been a folder, of which the name is left.

    Args:
        dataset: what ``encode`` finds the collection by.
        like: manifests of caches that there are.
        roles: whose vectors are wanted; an encode always makes both, an import one.
        part: ``i/n``, if only that is to be encoded.
    """
    specs = {one.role: one.spec for one in like if one.encoder == like[-1].encoder}
    spec = like[-1].spec if like else {}
    if spec.get("backend") == "imported":
        without_prompt = {**spec, "prompt": ""}
        return " and ".join(import_command(dataset, role, specs.get(role, without_prompt)) for role in roles)
    model = str(spec.get("model_id"))
    # A folder has no slash in its name. What is named so may be on the hub all the same.
    is_folder = "/" not in model
    named = ["--model", model, *(["--model-id", model] if is_folder else [])] if like and model not in _OWN else []
    words = ["--dataset", dataset, *named, *encode_options(specs), *(["--part", part] if part else [])]
    command = shlex.join(["ragcun-cache", "encode", *words])
    return f"{command} (--model: its name on the hub, or its folder)" if named and is_folder else command


def encode_options(specs: Mapping[Role, Mapping[str, Any]]) -> list[str]:
    """Return the options of ``encode`` beside the model's that make vectors of ``specs``, which are of one encoder."""
    options: list[str] = []
    for spec in list(specs.values())[:1]:
        own = _own(spec)
        for field, (option, default) in _OPTIONS.items():
            if spec.get(field) not in (None, own.get(field, default)):
                options += [option, str(spec[field])]
    for role, spec in specs.items():
        # Other models may have prompts of their own, so that there was none is to be said too.
        if spec.get("prompt") not in (None, _own(spec).get("prompt")):
            options += [_PROMPTS[role], spec["prompt"]]
    return options


def import_command(dataset: str, role: Role, spec: Mapping[str, Any]) -> str:
    """Return the command that imports vectors of the ``spec`` of imported ones; their file is left open."""
    words = ["ragcun-cache", "caches", "import", "--dataset", dataset, "--role", str(role)]
    words += ["--model-id", str(spec.get("model_id"))]
    for key, value in (spec.get("settings") or {}).items():
        words += ["--provenance", f"{key}={value}"]
    words += ["--prompt", spec["prompt"]] if spec.get("prompt") else []
    words += ["--storage-dtype", spec["storage_dtype"]] if spec.get("storage_dtype") == "float32" else []
    return f"{shlex.join(words)} --vectors …"


def _own(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return _OWN.get(str(spec.get("model_id")), {})
