"""The kinds of file below ``pipelines/``, each for a command of its own, told apart by their keys."""

from __future__ import annotations

from pydantic import BaseModel

from ragcun_cache.errors import ConfigError
from ragcun_cache.marked_yaml import MarkedYaml


def for_another_command(marked: MarkedYaml, command: str) -> ConfigError | None:
    """Return the error where all keys of the file are settings of one other command, and not all of ``command``."""
    from ragcun_cache.ablation.recipe import Recipe
    from ragcun_cache.training.config import TrainConfig
    from ragcun_cache.tuning.config import TuneConfig

    kinds: dict[str, type[BaseModel]] = {
        "ablate": Recipe,
        "train-head --config": TrainConfig,
        "tune --config": TuneConfig,
    }
    fitting = [kind for kind, model in kinds.items() if marked.content.keys() <= model.model_fields.keys()]
    if len(fitting) != 1 or fitting[0].split()[0] == command:
        return None
    return ConfigError(
        f"this file is for {fitting[0].split()[0]}, not for {command}",
        where=marked.path,
        fix=f"ragcun-cache {fitting[0]} {marked.path}",
    )
