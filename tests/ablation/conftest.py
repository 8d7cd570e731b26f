"""A home in which two small collections are cached, and recipes for it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ragcun_cache.ablation import workers
from ragcun_cache.ablation.bench import Bench
from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.home import Home

TRAIN = {
    "dataset": "tiny",
    "arch": "lejepa",
    "init": "random",
    "isotropy": "published",
    "learning_rate": 5e-4,
    "batch_size": 8,
    "epochs": 1,
    "device": "cpu",
}


@pytest.fixture
def cached_home(
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    for seed, name in enumerate(("tiny", "other")):
        cached_collection(name, dim=16, seed=seed)
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    return home


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe that trains for one short epoch unless told otherwise."""

    def write(*, train: dict[str, Any] | None = None, **content: Any) -> Path:
        path = tmp_path / "idea.yaml"
        whole = {"train": {**TRAIN, **(train or {})}, "evaluate": ["tiny", "other"], **content}
        path.write_text(yaml.safe_dump(whole))
        return path

    return write


class ThreadWorker(workers._Worker):
    """A worker that is a thread of this process, which starts at once."""

    def __init__(self, setup: workers.WorkerSetup) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        bench = Bench(setup.home, setup.collections, setup.split)
        self.process = threading.Thread(target=workers.serve, args=(theirs, bench))
        self.process.start()

    def end(self) -> None:
        self.pipe.close()
        self.process.join()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the worker be a thread, for tests of what happens around it; it computes on one thread, as a process does.

    There must only be one: threads share torch's random numbers.
    """
    monkeypatch.setattr(workers, "_Worker", ThreadWorker)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
