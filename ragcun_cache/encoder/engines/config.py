"""Where the model runs: settings that change no vector."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EngineName = Literal["local", "ray"]


class EngineConfig(BaseModel):
    """Settings of an engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = "local"
    """``local``: this machine. ``ray``: a Ray cluster."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that run the model; None: one, or one a GPU where there are several; on Ray, as many as find room."""
    threads: int | None = Field(default=None, ge=1)
    """Cores of each worker on a CPU; None: all cores, shared out evenly; on Ray, one."""
    ray_address: str | None = None
    """Of a Ray cluster; None: one that is running on this machine, else a new one that ends with the encode."""
