"""From a few lines to every run that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ragcun_cache.heads.config import Arch
from ragcun_cache.training.config import TrainConfig, make_config, settings_fixed_by


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a recipe, and what to call it among the others."""

    label: str
    config: TrainConfig


def cross(
    shared: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], own: Mapping[str, Any], seeds: Sequence[int]
) -> list[PlannedRun]:
    """Return a run for every point of ``grid`` and every seed; ``own`` goes over ``grid``, that over ``shared``.

    A list in ``own`` is a grid of this entry's own: no setting has a list for a value.
    What the architecture of a run leaves no choice in is taken out of ``grid``, ``shared`` and ``seeds`` for it, so
    some of the runs may be equal. In ``own`` it is an error, as any setting is that no run could have; ``name`` is
    no setting. Raises ConfigError.
    """
    settings = {name: value for name, value in own.items() if name != "name" and not isinstance(value, list)}
    own_grid = {name: value for name, value in own.items() if isinstance(value, list)}
    grid = {**{name: points for name, points in grid.items() if name not in settings}, **own_grid}
    runs = []
    for point in product(*grid.values()):
        chosen = dict(zip(grid, point, strict=True))
        arch = {**shared, **chosen, **settings}.get("arch", Arch.LEJEPA)
        fixed = settings_fixed_by(str(arch))
        free = {name: value for name, value in {**shared, **chosen}.items() if name not in fixed or name in own_grid}
        told = [str(own["name"])] if "name" in own else _told(settings)
        told += _told({name: value for name, value in chosen.items() if name in free})
        for seed in seeds:
            config = make_config({**free, **settings, **({} if "seed" in fixed else {"seed": seed})})
            runs.append(PlannedRun(", ".join([*(told or [str(config.arch)]), f"seed {config.seed}"]), config))
    return runs


def distinct(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Return ``runs`` without those that train what an earlier one does."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        first.setdefault(run.config.model_dump_json(), run)
    return list(first.values())


def _told(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items()]
