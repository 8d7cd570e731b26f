"""Engines: what runs the model, each behind the same interface."""

from ragcun_cache.encoder.engines.choose import open_engine
from ragcun_cache.encoder.engines.config import EngineConfig

__all__ = ["EngineConfig", "open_engine"]
