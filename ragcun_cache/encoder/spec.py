"""What makes a vector what it is. Two vectors are interchangeable only if their specs are equal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ragcun_cache.cache.manifest import encoder_fingerprint, spec_fingerprint
from ragcun_cache.encoder.config import EncodeConfig, SettledBackend, SettledPrecision
from ragcun_cache.encoder.template import TEMPLATE
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.files import sha256_file
from ragcun_cache.role import Role

# What the files of a tokenizer can be called, over the kinds of tokenizer there are.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "bpe.codes",
)
# What sentence-transformers knows of the Transformer itself; the first of these that says anything, as it does.
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PROMPT_NAMES = {Role.QUERY: ("query",), Role.PASSAGE: ("document", "passage", "corpus")}
# Their first token has position padding_idx + 1 (create_position_ids_from_input_ids in transformers).
_POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
# They send queries and passages different ways; the second name is that of older models.
_ROUTERS = frozenset({"Router", "Asym"})
# Facts of the machine that saved the model, which change no vector.
_CONFIG_NOISE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype"})


class EncoderSpec(BaseModel):
    """The identity of an encoder in one role. Its canonical JSON is hashed to the fingerprint that names a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    """2 where torch keeps rotary frequencies in float32 beside half-precision weights; under 1 it rounded them too.

    3 in int8, which under 1 had a scale for 256 inputs and each row of weights, not for 64, and rounded values too.
    """
    model_id: str
    weights: dict[str, str]
    """sha256 of every weight file, by its path in the model folder."""
    tokenizer: dict[str, str]
    """sha256 of every tokenizer file."""
    modules: list[dict[str, Any]]
    """The modules in order, each with its class and config (pooling mode, whether Normalize is there, and so on)."""
    max_seq_length: int
    role: Role
    prompt: str
    template: str = TEMPLATE
    precision: SettledPrecision
    backend: SettledBackend
    storage_dtype: Literal["float16", "float32"]

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, as it stands in a manifest."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stand for the whole spec."""
        return spec_fingerprint(self.to_dict())

    @property
    def encoder(self) -> str:
        """16 hex digits that queries and passages of the same encoder share."""
        return encoder_fingerprint(self.to_dict())

    @classmethod
    def of(cls, weights: Weights, role: Role, config: EncodeConfig) -> EncoderSpec:
        """Read the spec off the files of a model, without loading it. ``config`` has settled what was ``auto``.

        Raises:
            EncoderError: a file cannot be read, or the model is of a kind that is not supported.
        """
        assert config.precision != "auto"
        assert config.backend != "auto"
        folder, modules = weights.folder, _modules(weights.folder)
        half = config.backend == "torch" and config.precision in ("bf16", "fp16")
        rotary = half and _has_rotary_positions(modules[0]["config"])
        asked_prompt = config.query_prompt if role is Role.QUERY else config.passage_prompt
        return cls(
            schema_version=3 if config.precision == "int8" else 2 if rotary else 1,
            model_id=weights.model_id,
            weights=weights.sha256,
            tokenizer={name: sha256_file(folder / name) for name in TOKENIZER_FILES if (folder / name).exists()},
            modules=modules,
            max_seq_length=_max_seq_length(folder, config.max_seq_length),
            role=role,
            prompt=_own_prompt(folder, role) if asked_prompt is None else asked_prompt,
            precision=config.precision,
            backend=config.backend,
            storage_dtype=config.storage_dtype,
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError("a model file cannot be read", where=path, found=error) from None


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = []
    for entry in _json(folder / "modules.json"):
        name = str(entry["type"]).rsplit(".", 1)[-1]
        path = folder / entry["path"] / "config.json"
        config: dict[str, Any] = _json(path) if path.exists() else {}
        if not entry["path"]:  # The first module lies in the root, beside files that are not its own.
            config |= _transformer_config(folder)
        # What max_seq_length says stands in the spec by itself, as a user can change it.
        config = {key: value for key, value in config.items() if key not in {*_CONFIG_NOISE, "max_seq_length"}}
        modules.append({"class": name, "config": config})
    if routers := [module["class"] for module in modules if module["class"] in _ROUTERS]:
        raise EncoderError(
            "models that encode queries and passages in different ways are not supported",
            where=folder,
            expected="the same modules for both",
            found=routers[0],
            fix="encode its base model, and apply what follows that as a head",
        )
    if any(module["config"].get("include_prompt") is False for module in modules):
        raise EncoderError("models that leave the prompt out of pooling are not supported", where=folder)
    if modules[0]["class"] != "Transformer":
        raise EncoderError(
            "this kind of model is not supported",
            where=folder,
            expected="a model whose first module is a Transformer",
            found=modules[0]["class"],
        )
    return modules


def _transformer_config(folder: Path) -> dict[str, Any]:
    """Return what the model in ``folder`` says of its Transformer beside ``config.json``."""
    paths = [folder / name for name in _TRANSFORMER_CONFIGS]
    return next((config for path in paths if path.exists() and (config := _json(path))), {})


def _max_seq_length(folder: Path, asked: int | None) -> int:
    """Return how many tokens are read: as asked, or by the model's own limit; no more than it knows positions."""
    positions = _positions(_json(folder / "config.json"))
    if asked is not None:
        if positions is not None and asked > positions:
            raise EncoderError(
                "--max-seq-length is more than the model can read",
                where=folder / "config.json",
                expected=f"at most {positions}",
                found=asked,
            )
        return asked
    length, tokenizer = _transformer_config(folder).get("max_seq_length"), folder / "tokenizer_config.json"
    if length is None and tokenizer.exists():
        length = _json(tokenizer).get("model_max_length")
    return min((int(limit) for limit in (length, positions) if limit is not None), default=512)


def _positions(config: dict[str, Any]) -> int | None:
    """Return how many tokens the transformer has positions for, if its config says so."""
    positions = config.get("max_position_embeddings")
    if positions is None:
        return None
    taken = 0
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        taken = 1 + int(1 if padding is None else padding)
    return int(positions) - taken


def _has_rotary_positions(config: dict[str, Any]) -> bool:
    """Whether a transformer's config has a key such as ``rope_theta``, ``global_rope_theta`` or ``rotary_pct``."""
    return re.search(r'["_](rope|rotary)', json.dumps(config)) is not None


def _own_prompt(folder: Path, role: Role) -> str:
    path = folder / "config_sentence_transformers.json"
    content = _json(path) if path.exists() else {}
    prompts = content.get("prompts") or {}
    for name in (*_PROMPT_NAMES[role], content.get("default_prompt_name")):
        if name in prompts:
            return str(prompts[name] or "")
    return ""
