"""The driver that writes caches and is stopped at will, in this process and in processes of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """The module ``driver.py``, for what can be tested in this process."""
    spec = importlib.util.spec_from_file_location("cache_driver", _DRIVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder in memory where there is one: thousands of fsyncs cost nothing there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="ragcun-cache-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def run_jobs() -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """A function that runs jobs at once, each in a real process, and returns their outcomes (see driver.py)."""
    server = subprocess.Popen([sys.executable, str(_DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None

    def run(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
        server.stdin.write(json.dumps([{**job, "caches": str(job["caches"])} for job in jobs]) + "\n")
        server.stdin.flush()
        outcomes: list[dict[str, Any]] = json.loads(server.stdout.readline())
        return outcomes

    yield run
    server.stdin.close()
    server.wait()
    server.stdout.close()
