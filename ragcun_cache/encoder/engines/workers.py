"""The model in several processes of this machine, a device or a group of cores for each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from ragcun_cache.encoder.blocks import Block
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.engines.engine import Encodings, Model
from ragcun_cache.encoder.engines.local import LocalEngine
from ragcun_cache.encoder.forward import NOTHING, Encoded
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.threads import ahead
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import EncoderError, RagcunCacheError
from ragcun_cache.progress import Advance, silent

# A shard that is on the way when its worker dies is tried again, alone, until it has seen so many deaths.
_DEATHS = 3
# One shard in the forward pass and one being tokenised.
_AT_ONCE = 2
_END_SECONDS = 5.0
_PROGRESS_SECONDS = 0.2
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """Where one worker runs: a device, and on a CPU the cores that it may use."""

    device: str
    cores: frozenset[int] | None = None


def places(device: str, gpus: int, workers: int, threads: int | None, cores: Sequence[int]) -> list[Place]:
    """Return where each of ``workers`` runs: GPUs in turns, or the cores of this machine in even groups."""
    kind, _, number = device.partition(":")
    if kind != "cpu":
        spread = kind == "cuda" and not number and gpus > 0
        return [Place(f"cuda:{worker % gpus}" if spread else device) for worker in range(workers)]
    size = threads or max(len(cores) // workers, 1)
    groups = [[cores[(worker * size + core) % len(cores)] for core in range(size)] for worker in range(workers)]
    return [Place(device, frozenset(group)) for group in groups]


@dataclass
class _Worker:
    """A process, the pipe to it, and the blocks that it has: the first is in the forward pass."""

    place: Place
    process: SpawnProcess
    pipe: Connection
    dim: int | None = None
    blocks: deque[Block] = field(default_factory=deque)
    alone: bool = False

    def has_room(self) -> bool:
        return self.dim is not None and not self.alone and len(self.blocks) < _AT_ONCE


class WorkersEngine:
    """Hands out blocks to processes; what a process had when it died is handed to another.

    At most two blocks a worker are under way, and as many finished ones wait for their turn.
    """

    name = "local"

    def __init__(self, model: FrozenModel, where: Sequence[Place]) -> None:
        """Take the model as it is settled; the processes start when they are first needed."""
        self.model: Model = model
        self.workers = len(where)
        self._frozen = model
        self._where = where
        self._running: list[_Worker] = []
        self._failed_starts = 0

    @property
    def dim(self) -> int:
        """Dimensions of a vector, as the first worker says that has loaded the model."""
        while True:
            self._start()
            for worker in self._running:
                if worker.dim is not None:
                    return worker.dim
            self._receive(_Run())

    def encode(self, blocks: Iterator[Block], advance: Advance) -> Encodings:
        """Yield every block with what became of its strings, in the order of ``blocks``."""
        run = _Run(advance=advance, window=2 * _AT_ONCE * self.workers)
        with closing(ahead(blocks)) as source:
            try:
                while run.fill(source):
                    first = next(iter(run.blocks.values()))
                    if first.index in run.done:
                        yield run.blocks.pop(first.index), run.done.pop(first.index)
                        continue
                    self._start()
                    self._hand_out(run)
                    self._receive(run)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End all processes, at once those that are at work."""
        workers, self._running = self._running, []
        for worker in workers:
            with suppress(OSError):
                worker.pipe.send(None)
            if worker.blocks or worker.dim is None:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(_END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()

    def _start(self) -> None:
        taken = [worker.place for worker in self._running]
        for place in self._where:
            if place in taken:
                taken.remove(place)
                continue
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, self._frozen.weights, self._frozen.config, place), daemon=True
            )
            process.start()
            theirs.close()
            self._running.append(_Worker(place, process, ours))

    def _hand_out(self, run: _Run) -> None:
        """Give the next blocks to the workers that have the fewest."""
        while run.todo:
            block = run.todo[0]
            alone = run.deaths.get(block.index, 0) > 0
            free = [worker for worker in self._running if worker.has_room() and not (alone and worker.blocks)]
            if not free:
                return
            worker = min(free, key=lambda one: len(one.blocks))
            worker.blocks.append(run.todo.popleft())
            worker.alone = alone
            with suppress(OSError):  # It has died; what comes of that is seen when its messages are read.
                worker.pipe.send(block.bare())

    def _receive(self, run: _Run) -> None:
        """Wait until a worker says something or dies, and take note."""
        ready = set(wait([one for worker in self._running for one in (worker.pipe, worker.process.sentinel)]))
        for worker in list(self._running):
            if not {worker.pipe, worker.process.sentinel} & ready:
                continue
            if worker.process.sentinel in ready:
                worker.process.join()  # Its end of the pipe is closed only when all of it is gone.
            try:
                while worker.pipe.poll():
                    self._note(worker, worker.pipe.recv(), run)
            except (EOFError, OSError):
                self._bury(worker, run)

    def _note(self, worker: _Worker, message: tuple[str, Any], run: _Run) -> None:
        kind, content = message
        if kind == "loaded":
            worker.dim, self._failed_starts = content, 0
        elif kind == "progress":
            run.advance(content[0], tokens=content[1])
        elif kind == "encoded":
            block = worker.blocks.popleft()
            worker.alone = False
            run.done[block.index] = content
        else:
            raise content

    def _bury(self, worker: _Worker, run: _Run) -> None:
        """Take back what a dead worker had, in front of what is next."""
        worker.process.join()
        worker.pipe.close()
        self._running.remove(worker)
        code = worker.process.exitcode or 0
        how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit status {code}"
        if worker.dim is None:
            self._failed_starts += 1
        if self._failed_starts >= _DEATHS:
            raise EncoderError(f"a worker died {_DEATHS} times while it loaded the model", found=how)
        for block in reversed(worker.blocks):
            run.deaths[block.index] = run.deaths.get(block.index, 0) + 1
            if run.deaths[block.index] >= _DEATHS:
                raise EncoderError(
                    f"shard {block.index} killed its worker {_DEATHS} times",
                    where=f"rows {block.ids[0]!r} to {block.ids[-1]!r}",
                    found=how,
                    fix="give each worker more memory (fewer --workers, smaller --batch-tokens), or find the text",
                )
            run.todo.appendleft(block)


@dataclass
class _Run:
    """The blocks of one encode, from when they are read until their turn comes to be handed back.

    Attributes:
        advance: told of progress.
        window: blocks that may be held at once.
        blocks: all that are held, in order.
        todo: those that no worker has.
        done: what became of those that are finished.
        deaths: workers that died over a block.
    """

    advance: Advance = silent
    window: int = 0
    blocks: dict[int, Block] = field(default_factory=dict)
    todo: deque[Block] = field(default_factory=deque)
    done: dict[int, Encoded] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)

    def fill(self, source: Iterator[Block]) -> bool:
        """Read blocks until the window is full or none is left; return whether any is held."""
        while len(self.blocks) < self.window and (block := next(source, None)) is not None:
            self.blocks[block.index] = block
            if block.strings:
                self.todo.append(block)
            else:
                self.done[block.index] = NOTHING
        return bool(self.blocks)


def _work(pipe: Connection, weights: Weights, config: EncodeConfig, place: Place) -> None:
    """Be a worker: load the model, then encode what comes through the pipe until there is no more."""
    # Ctrl-C goes to all processes; the first one ends the others, which then tidy up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        threads = _use_cores(place.cores) if place.cores is not None else None
        engine = LocalEngine(FrozenModel(weights, config.model_copy(update={"device": place.device}), threads))
        pipe.send(("loaded", engine.dim))
        told = _Told(pipe)
        # Read in a thread of its own, so that nobody who sends waits for the tokeniser.
        requests = ahead(_requests(pipe, engine.stopping), depth=_AT_ONCE)
        for _, encoded in engine.encode(requests, told.advance):
            told.send()
            pipe.send(("encoded", encoded))
    except (EOFError, ConnectionError):
        return  # Nobody is there to answer to.
    except RagcunCacheError as error:
        pipe.send(("failed", error))
    except Exception as error:
        # The traceback stays on this side of the pipe, so it goes along as text.
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        pipe.send(("failed", error))
    finally:
        # To be told to end while it ends already would make a traceback of a library's last words.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _requests(pipe: Connection, stopping: threading.Event) -> Iterator[Block]:
    """Yield blocks until None comes, or until the worker has failed and asks for no more."""
    while not stopping.is_set():
        if pipe.poll(_POLL_SECONDS):
            if (block := pipe.recv()) is None:
                return
            yield block


@dataclass
class _Told:
    """Progress that is reported now and then, not with every batch."""

    pipe: Connection
    rows: float = 0.0
    tokens: float = 0.0
    last: float = 0.0

    def advance(self, amount: float, **extra: float) -> None:
        self.rows += amount
        self.tokens += extra.get("tokens", 0.0)
        if time.monotonic() - self.last >= _PROGRESS_SECONDS:
            self.send()

    def send(self) -> None:
        self.pipe.send(("progress", (self.rows, self.tokens)))
        self.rows, self.tokens, self.last = 0.0, 0.0, time.monotonic()


def _use_cores(cores: frozenset[int]) -> int | None:
    """Keep this process and all its threads to some cores, where the system can; else to their number, and return it.

    It is None where the cores are kept to: whoever counts them finds those alone.
    """
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    can_keep = hasattr(os, "sched_setaffinity")
    if can_keep:
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(len(cores))
    return None if can_keep else len(cores)
