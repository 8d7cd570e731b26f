"""Running a function in a process of its own, to see how much memory it takes."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Alone(Generic[Result]):
    """What a function returned, the seconds it took, and the peak of its process's resident memory in bytes."""

    result: Result
    seconds: float
    peak_bytes: int


def run_alone(function: Callable[..., Result], *args: Any) -> Alone[Result]:
    """Call a module-level ``function`` in a new interpreter. Mapped pages of files that are in use count as memory."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, *args).result()


def _measured(function: Callable[..., Result], *args: Any) -> Alone[Result]:
    started = time.perf_counter()
    result = function(*args)
    return Alone(result, time.perf_counter() - started, peak_bytes())


def peak_bytes() -> int:
    """Return the peak of this process's resident memory.

    Linux's ``VmHWM``, where there is one: ``ru_maxrss`` of a child is never below what its parent held at the fork.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
