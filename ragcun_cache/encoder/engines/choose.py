"""The engine that a user asked for."""

from __future__ import annotations

import os

from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.engines.config import EngineConfig
from ragcun_cache.encoder.engines.engine import Engine
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.home import Home


def default_workers(device: str) -> int:
    """Return how many processes run the model where nobody says: one, or one a GPU if the device is left open."""
    import torch

    return max(torch.cuda.device_count(), 1) if device == "auto" else 1


def open_engine(settings: EngineConfig, weights: Weights, config: EncodeConfig, home: Home) -> Engine:
    """Return the engine, the settings of its model settled, the model itself not loaded yet.

    Raises:
        ConfigError: what was asked for is not to be had.
    """
    if settings.engine == "ray":
        from ragcun_cache.encoder.engines.ray import RayEngine

        return RayEngine(settings, config, home)
    import torch

    from ragcun_cache.encoder.engines.local import LocalEngine
    from ragcun_cache.encoder.engines.workers import WorkersEngine, places

    model = FrozenModel(weights, config)
    gpus = torch.cuda.device_count()
    every_gpu = default_workers(config.wanted_device) > 1
    workers = settings.workers or default_workers(config.wanted_device)
    if workers == 1 and settings.threads is None:
        return LocalEngine(model)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    device = "cuda" if every_gpu else model.config.device
    return WorkersEngine(model, places(device, gpus, workers, settings.threads, cores))
