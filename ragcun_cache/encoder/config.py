"""What a user can ask of an encode. Imports no torch, so a wrong setting is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ragcun_cache.cache.layout import VectorFormat
from ragcun_cache.role import Role

DEFAULT_MODEL = "all-mpnet-base-v2"

SettledBackend = Literal["torch", "openvino"]
SettledPrecision = Literal["fp32", "bf16", "fp16", "int8"]
BackendName = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
StorageDtype = Literal["float16", "float32"]


class EncodeConfig(BaseModel):
    """Settings of one encode. Those that change a vector are part of its spec, the others only of its cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = DEFAULT_MODEL
    """A sentence-transformers model: a folder, a name below ``models/``, or a hub name."""
    model_id: str | None = Field(default=None, min_length=1)
    """The name that its caches carry and tables show; None: its name on the hub, of a folder the folder's name."""
    backend: BackendName = "auto"
    """What runs the transformer; ``auto`` is OpenVINO on a CPU, and torch on a GPU or for a decoder."""
    precision: Precision = "auto"
    """Of the transformer's weights and activations; pooling and normalisation are always float32."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: the CPU for OpenVINO, else a GPU if there is one."""
    storage_dtype: StorageDtype = "float16"
    max_seq_length: int | None = Field(default=None, ge=2)
    """Tokens read of each text, special tokens included; None: the model's own limit."""
    query_prompt: str | None = None
    """Put before every query; None: the model's own query prompt, if it has one."""
    passage_prompt: str | None = None
    """Put before every passage; None: the model's own document prompt, if it has one."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Padded tokens in one forward pass; None: what suits the device."""
    shard_rows: int | None = Field(default=None, ge=1)
    """Rows that become durable together; None: by the size of the collection."""
    format: VectorFormat = "memmap"
    """Of the vector files of a cache that is new; one that is there keeps its own until it is converted."""

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any], model: str, device: str = "auto") -> Self:
        """Return what asks ``model`` for vectors of the ``spec`` in a cache's manifest, in the role that it is of."""
        settled = {name: spec[name] for name in ("backend", "precision", "storage_dtype", "max_seq_length")}
        prompt = "query_prompt" if spec["role"] == Role.QUERY else "passage_prompt"
        return cls.model_validate({"model": model, "device": device, **settled, prompt: spec["prompt"]})

    @property
    def wanted_device(self) -> str:
        """The device asked for; OpenVINO runs on a CPU alone, so with it none is left open."""
        return "cpu" if (self.device, self.backend) == ("auto", "openvino") else self.device

    @property
    def is_settled(self) -> bool:
        """Whether backend and precision are left to the machine in nothing."""
        return "auto" not in (self.backend, self.precision)
