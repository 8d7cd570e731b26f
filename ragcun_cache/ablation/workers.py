"""Processes that carry out runs side by side, each on as many threads as it is given."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Literal, Self

from ragcun_cache.errors import RagcunCacheError
from ragcun_cache.home import Home
from ragcun_cache.training.config import TrainConfig

if TYPE_CHECKING:
    from ragcun_cache.ablation.bench import Bench


@dataclass(frozen=True)
class Task:
    """A run to carry out; ``number`` is how events speak of it. Without ``evaluate`` it is only trained.

    On its way it leaves the heads of shorter runs, of ``also_epochs`` epochs.
    """

    number: int
    name: str
    config: TrainConfig
    evaluate: bool
    also_epochs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Event:
    """What happened to a run. ``row`` is the metrics row of the latest epoch that was kept."""

    number: int
    kind: Literal["started", "epoch", "done", "failed"]
    row: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know before its first task."""

    home: Home
    collections: tuple[str, ...]
    split: str | None
    threads: int = 1


class Workers:
    """Up to ``jobs`` processes, started when there is work for them and ended with the ``with`` block.

    A process that dies takes down its run only: that is reported as failed, and another process goes on. Processes
    also end, at whatever they are, when this one is gone.
    """

    def __init__(self, setup: WorkerSetup, jobs: int) -> None:
        self._setup = setup
        self._jobs = jobs
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.end()

    def carry_out(self, tasks: Sequence[Task], watch: Callable[[Event], None]) -> None:
        """Carry out ``tasks``, begun in that order, and tell ``watch`` of all that happens. Returns when all ended."""
        waiting = deque(tasks)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._jobs:
                worker = self._idle.pop() if self._idle else _Worker(self._setup)
                worker.begin(waiting.popleft(), watch)
                self._busy[worker.pipe] = worker
            for pipe in connection.wait(list(self._busy)):
                assert isinstance(pipe, Connection)
                self._hear(self._busy[pipe], watch)

    def _hear(self, worker: _Worker, watch: Callable[[Event], None]) -> None:
        event = worker.hear()
        if event.kind in ("done", "failed"):
            del self._busy[worker.pipe]
            if worker.process.is_alive():
                self._idle.append(worker)
        watch(event)


class _Worker:
    """One process, seen from outside."""

    def __init__(self, setup: WorkerSetup) -> None:
        # Spawned, not forked: a fork copies the locks of threads that it does not copy.
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, setup), daemon=True)
        with _environment(OMP_NUM_THREADS=str(setup.threads)):
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self._task: Task | None = None
        self._started = 0.0

    def begin(self, task: Task, watch: Callable[[Event], None]) -> None:
        self._task, self._started = task, time.perf_counter()
        watch(Event(task.number, "started"))
        with suppress(OSError):  # it may have died while it was idle: its pipe will say so
            self.pipe.send(task)

    def hear(self) -> Event:
        """Return the next event of the task; that the process is no more is one."""
        assert self._task is not None
        try:
            event: Event = self.pipe.recv()
            return event
        except (EOFError, OSError):
            self.process.join()
            seconds = time.perf_counter() - self._started
            return Event(self._task.number, "failed", seconds=seconds, error=_how_it_died(self.process.exitcode))

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _how_it_died(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with status {code}"
    name = signal.Signals(-code).name
    hint = " (killed; out of memory?)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, setup: WorkerSetup) -> None:
    """Be a worker, from the first line of its process to the last."""
    # Ctrl-C reaches every process of the terminal: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import torch

    from ragcun_cache.ablation.bench import Bench
    from ragcun_cache.progress import mute

    mute()
    torch.set_num_threads(setup.threads)
    serve(pipe, Bench(setup.home, setup.collections, setup.split))


def serve(pipe: Connection, bench: Bench) -> None:
    """Carry out the tasks that come through ``pipe``, and report on each, until its other end is closed."""
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        pipe.send(_carry_out(bench, task, pipe))


def _carry_out(bench: Bench, task: Task, pipe: Connection) -> Event:
    started = time.perf_counter()
    try:
        trained = bench.carry_out(
            task.name,
            task.config,
            evaluate=task.evaluate,
            also_epochs=task.also_epochs,
            on_epoch=lambda row: pipe.send(Event(task.number, "epoch", row, time.perf_counter() - started)),
        )
        return Event(task.number, "done", trained.rows[-1], time.perf_counter() - started)
    except Exception as error:
        # Whatever it is, the next run may well be sound.
        known = isinstance(error, RagcunCacheError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        trace = None if known else traceback.format_exc()
        return Event(task.number, "failed", None, time.perf_counter() - started, text, trace)


def _end_with_parent() -> None:
    """Wait for the parent to be gone, then leave at once: what is on disk is whole at every moment."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
