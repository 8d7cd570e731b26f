"""One encode by several processes: workers, a Ray cluster, one that loses a worker, and the parts of two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil

from benchmarks.models import write_collection
from benchmarks.passages import some_texts
from benchmarks.setting import Setting
from benchmarks.timing import Timing, take_turns
from ragcun_cache.encoder.config import DEFAULT_MODEL
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.files import sha256_file
from ragcun_cache.home import Home
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.role import Role

TITLE = "An encode by several processes"
PACKAGES = ("numpy", "torch", "openvino", "ray")

_PASSAGES = 256
_SHARD_ROWS = 32
_ROUNDS = 3
_ONE, _TWO, _RAY = "one process", "two workers", "Ray, two tasks at a time"
_KILLED, _PARTS = "the same, a worker killed midway", "two machines' parts, merged"
_TWO_CORES = ("--workers", "2", "--threads", "1")


class Encodes:
    """Runs of the command over one collection, each from nothing but the model and its converted graph."""

    def __init__(self, home: Home, collection: Path, model: Path, shards: int) -> None:
        self._home, self._collection, self._shards = home, collection, shards
        self._encode = ["encode", "--dataset", str(collection), "--model", str(model)]
        self._encode += ["--shard-rows", str(_SHARD_ROWS), "--json"]
        self.files: dict[str, str] = {}

    def whole(self, *settings: str) -> None:
        """Encode by one command."""
        self._clear()
        _end(self._start(*self._encode, *settings))
        self.files = self._checksums()

    def one_killed(self, *settings: str) -> None:
        """Encode by one command on Ray; once half of the shards are written, kill a process that runs a task."""
        self._clear()
        process = self._start(*self._encode, *settings)
        while self._written() < self._shards // 2 or not (running := _ray_workers(process.pid)):
            if process.poll() is not None:
                raise EncoderError("the encode was over before a worker could be killed", fix="more passages: --rows")
            time.sleep(0.01)
        running[0].send_signal(signal.SIGKILL)
        _end(process)
        self.files = self._checksums()

    def parts(self) -> None:
        """Encode two parts side by side, each by a process that sees one core, and merge them."""
        self._clear()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        parts = [
            self._start(*self._encode, "--part", f"{number}/2", cores=group)
            for number, group in ((1, cores[:1]), (2, cores[-1:]))
        ]
        for part in parts:
            _end(part)
        _end(self._start("caches", "merge", "--dataset", str(self._collection)))
        self.files = self._checksums()

    def _start(self, *arguments: str, cores: Sequence[int] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ragcun_cache", *arguments],
            env={**os.environ, "RAGCUN_HOME": str(self._home.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if cores:
            psutil.Process(process.pid).cpu_affinity(list(cores))
        return process

    def _clear(self) -> None:
        shutil.rmtree(self._home.caches, ignore_errors=True)

    def _written(self) -> int:
        return sum(path.parent.name.startswith("passage-") for path in self._home.caches.rglob("vectors-*"))

    def _checksums(self) -> dict[str, str]:
        """Return the sha256 of every file of vectors and of rows, by its place."""
        return {
            str(path.relative_to(self._home.caches)): sha256_file(path)
            for pattern in ("vectors-*", "rows-*")
            for path in self._home.caches.rglob(pattern)
        }


def run(setting: Setting) -> str:
    """Return the section: wall time of each way, its ratio to one process, and whether the bytes are the same."""
    rows = setting.rows or _PASSAGES
    texts, drawn_from = some_texts(setting.home, "msmarco-12k", Role.PASSAGE, rows)
    home = Home(setting.scratch / "home")
    model = find_weights(DEFAULT_MODEL, setting.home).folder.absolute()
    encodes = Encodes(home, write_collection(setting.scratch / "texts", texts), model, -(-len(texts) // _SHARD_ROWS))
    ray = ("--engine", "ray", *_TWO_CORES)
    ways: dict[str, Callable[[], None]] = {
        _ONE: encodes.whole,
        _TWO: partial(encodes.whole, *_TWO_CORES),
        _RAY: partial(encodes.whole, *ray),
        _KILLED: partial(encodes.one_killed, *ray),
        _PARTS: encodes.parts,
    }
    files: dict[str, list[dict[str, str]]] = {way: [] for way in ways}

    def encode(way: str) -> None:
        ways[way]()
        files[way].append(encodes.files)

    timings = take_turns({way: partial(encode, way) for way in ways}, rounds=_ROUNDS)
    about = (
        f"{len(texts):,} {drawn_from}, encoded by the command with the real all-mpnet-base-v2 in shards of "
        f"{_SHARD_ROWS} rows. The seconds are all of its wall time: Python and the model start in every process, and "
        f"Ray starts a cluster and ends it. `{_ONE}` has all cores, each process of the others one; the machines' "
        f"parts run side by side. Medians of {_ROUNDS} rounds. The bytes are those of all files of vectors and rows, "
        "in every round."
    )
    expected = files[_ONE][0]
    lines = [[way, *_figures(timing, timings), same_files(files[way], expected)] for way, timing in timings.items()]
    return paragraphs(about, table(["", "s", f"÷ {_ONE}", f"÷ {_TWO}", f"bytes of {_ONE}"], lines))


def _figures(timing: Timing, timings: dict[str, Timing]) -> list[object]:
    return [timing.spread, timing.over(timings[_ONE]), timing.over(timings[_TWO])]


def same_files(found: Sequence[dict[str, str]], expected: dict[str, str]) -> str:
    """Say whether all of ``found`` are as ``expected``, by the checksums of files; else how many differ or lack."""
    differing = {name for files in found for name, _ in files.items() ^ expected.items()}
    return f"{len(differing)} of {len(expected)} differ" if differing else "the same"


def _ray_workers(number: int) -> list[psutil.Process]:
    """Return the processes below ``number`` that run a task of an encode."""
    try:
        below = psutil.Process(number).children(recursive=True)
        return [process for process in below if process.cmdline()[:1] == ["ray::_encode"]]
    except psutil.NoSuchProcess:  # One has ended meanwhile.
        return []


def _end(process: subprocess.Popen[str]) -> None:
    said = process.communicate()[1]
    if process.returncode:
        raise EncoderError("a command failed", found=said.strip().splitlines()[-1] if said else process.returncode)
