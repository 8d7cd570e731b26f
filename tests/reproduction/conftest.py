"""A home with two small collections, a page of three published rows, and a recipe for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep
from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.home import Home
from reproduction.rows import Row, SeedRun

PUBLISHED = """\
collections: {tiny: Tiny, other: Other}
rows:
  - {name: Raw, scores: {tiny: 0.5, other: 0.5}, source: a list}
  - {name: Head | one, scores: {tiny: 0.5, other: 0.4, mean: 0.45}, source: a paper}
  - {name: Head that fails, scores: {mean: 0.2}, source: a paper}
residual: {source: a log, first_batch: {loss: 0.1}, epochs: {1: {output_std: 0.02, no_such_column: 1.0}}}
"""
PAGE = """\
published: published.yaml
recipes: [recipe.yaml]
null_recipes: [nulls.yaml]
untrained: {16: untrained}
rows:
  - {published: Raw, as_ran: raw encoder}
  - {published: Head | one, as_ran: "slow, epochs=2", as_written: diverges}
  - {published: Head that fails, as_ran: "slow, epochs=1", fails: true, note: Not quite the same.}
residual: slow, epochs=1
causes:
  - {row: Slow, claim: It has learnt nothing., failed: "slow, epochs=2", removed: untrained, side: same}
  - {row: Other, claim: It is the rate., failed: "slow, epochs=2", removed: never run, side: higher}
"""
RECIPE = """\
train: {dataset: tiny, arch: lejepa, init: random, isotropy: published, batch_size: 8, device: cpu}
grid: {epochs: [1, 2]}
runs:
  - {name: slow, learning_rate: 1e-4}
  - {name: diverges, learning_rate: 1e38, epochs: 2}
  - {name: never run, learning_rate: 1e-3, epochs: 1}
seeds: 0-1
evaluate: [tiny, other]
"""
NULLS = """\
train: {dataset: tiny, arch: untrained, device: cpu}
runs: [{name: untrained}, {name: the same again}]
seeds: 0-2
evaluate: [tiny, other]
"""


@pytest.fixture
def cached_home(
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    for seed, (name, judged) in enumerate((("tiny", 15), ("other", 8))):
        cached_collection(name, splits={"train": 40, "dev": 15, "test": judged}, dim=16, seed=seed)
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    return home


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    """Write the page's files and return the one that names the others."""
    folder = tmp_path / "plan"
    folder.mkdir()
    for name, text in (("published", PUBLISHED), ("page", PAGE), ("recipe", RECIPE), ("nulls", NULLS)):
        (folder / f"{name}.yaml").write_text(text)
    return folder / "page.yaml"


@pytest.fixture
def carry_out(cached_home: Home) -> Callable[..., Sweep]:
    """Carry out the runs of a recipe in this process, but those whose label begins with "never"."""

    def run(path: Path) -> Sweep:
        sweep = Sweep(load_recipe(path), cached_home)
        # The longest first: what a shorter one trains, it leaves on its way.
        for one in sorted(sweep.runs, key=lambda run: -run.planned.config.epochs):
            config = one.planned.config
            if one.planned.label.startswith("never"):
                continue
            try:
                sweep.bench.carry_out(
                    str(one.name), config, evaluate=True, also_epochs=range(config.epochs), on_epoch=lambda row: None
                )
            except Exception as error:
                sweep.record.keep_failure(str(one.name), one.planned, str(error), None)
        return sweep

    return run


@pytest.fixture
def row_of() -> Callable[..., Row]:
    """Make up a row: scores (s, q) by collection, and the metrics of the kept epoch."""

    def make(label: str, scores: Mapping[str, Any], *, asked: int | None = None) -> Row:
        arrays = {name: np.asarray(values, float) for name, values in scores.items()}
        n = len(next(iter(arrays.values()))) if arrays else 0
        runs = {
            seed: SeedRun(None, [], [], {name: values[seed] for name, values in arrays.items()}) for seed in range(n)
        }
        return Row(label, None, list(range(n if asked is None else asked)), runs)

    return make
