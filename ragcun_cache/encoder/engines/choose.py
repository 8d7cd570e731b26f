"""The engine that a user asked for."""

from __future__ import annotations

from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.engines.config import EngineConfig
from ragcun_cache.encoder.engines.engine import Engine
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.home import Home


def open_engine(settings: EngineConfig, weights: Weights, config: EncodeConfig, home: Home) -> Engine:
    """Return the engine, the settings of its model settled, the model itself not loaded yet.

    Raises:
        ConfigError: what was asked for is not to be had.
    """
    from ragcun_cache.encoder.engines.local import LocalEngine

    return LocalEngine(FrozenModel(weights, config))
