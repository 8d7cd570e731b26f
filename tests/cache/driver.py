"""Writes one cache of made-up vectors, and can be stopped at every step that the protocol takes on the disk.

As a script it is a server: a job in JSON on each line of stdin, its outcome on stdout. Every job runs in a process of
its own, forked from one that has written a cache before, so a hundred crashes take seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from unittest import mock

import numpy as np

from ragcun_cache.cache import CacheLayout, CacheWriter, EmbeddingCache, Manifest, Shard
from ragcun_cache.cache.manifest import encoder_fingerprint, spec_fingerprint
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role

DIM = 16
SHARD_ROWS = 24
REFUSED, INTERRUPTED, UNEXPECTED = 3, 4, 5


def manifest_of(total_rows: int, vector_format: str = "memmap") -> Manifest:
    """Return the manifest, without shards, of a cache of ``total_rows`` made-up vectors."""
    spec = {"model_id": "made-up", "backend": "none", "precision": "fp32", "role": "passage"}
    return Manifest(
        collection="any",
        role=Role.PASSAGE,
        content_sha256=sha256(str(total_rows).encode()).hexdigest(),
        spec=spec,
        fingerprint=spec_fingerprint(spec),
        encoder=encoder_fingerprint(spec),
        dim=DIM,
        dtype="float16",
        format=vector_format,
        shard_rows=SHARD_ROWS,
        total_rows=total_rows,
    )


def layout_of(caches: Path, total_rows: int) -> CacheLayout:
    """Return where that cache lies below ``caches``."""
    asked = manifest_of(total_rows)
    return CacheLayout.of(caches, asked.collection, asked.role, asked.fingerprint, asked.content_sha256)


def shard_at(index: int, total_rows: int) -> Shard:
    """Return the same shard for the same number, always: what an encoder would give."""
    rows = range(index * SHARD_ROWS, min((index + 1) * SHARD_ROWS, total_rows))
    vectors_nd = np.random.default_rng(index).normal(size=(len(rows), DIM))
    norms = np.linalg.norm(vectors_nd, axis=1)
    ids = [f"row {row} 🦜" for row in rows]
    return Shard(
        ids=ids,
        vectors_nd=(vectors_nd / norms[:, None]).astype(np.float16),
        text_sha256=[sha256(identifier.encode()).digest() for identifier in ids],
        n_tokens=np.arange(len(rows), dtype=np.int32),
        truncated=np.arange(len(rows)) % 2 == 0,
        norms=norms.astype(np.float32),
    )


def write(caches: Path, total_rows: int, vector_format: str = "memmap", pause: float = 0.0) -> int:
    """Write the cache, or the rest of it, and return how many shards that took."""
    written = 0
    with CacheWriter(layout_of(caches, total_rows), manifest_of(total_rows, vector_format)) as writer:
        while writer.manifest.rows < total_rows:
            time.sleep(pause)
            writer.append(shard_at(len(writer.manifest.shards), total_rows))
            written += 1
        writer.finish(seconds=1.0)
    return written


def read(caches: Path, total_rows: int, vector_format: str) -> int:
    """Open and read the cache again and again until it is complete; return how often."""
    expected_nd = np.concatenate(
        [shard_at(i, total_rows).vectors_nd for i in range(-(-total_rows // SHARD_ROWS))]
    ).astype(np.float32)
    rng = np.random.default_rng(os.getpid())
    for opened in range(1, 1_000_000):
        cache = EmbeddingCache(layout_of(caches, total_rows).folder, allow_incomplete=True)
        if cache.rows % SHARD_ROWS and cache.rows != total_rows:
            raise AssertionError(f"{cache.rows} rows are not whole shards")
        rows = rng.integers(0, max(cache.rows, 1), size=5 if cache.rows else 0)
        if not np.array_equal(cache.gather(rows), expected_nd[rows]):
            raise AssertionError("wrong vectors")
        if opened % 5 == 0 and [cache.ids[row] for row in rows] != [f"row {row} 🦜" for row in rows]:
            raise AssertionError("wrong ids")
        if cache.manifest.complete:
            if not np.array_equal(cache.array(), expected_nd):
                raise AssertionError("wrong vectors at the end")
            return opened
    raise AssertionError("never complete")


class _Handle:
    """A file being written, each of whose steps is announced; large writes are announced half-way too."""

    def __init__(self, handle: IO[bytes], step: Callable[[str], None], name: str) -> None:
        self._handle, self._step, self._name = handle, step, name

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def write(self, data: Any) -> int:
        part = memoryview(data).cast("B")
        self._step(f"write {self._name}")
        self._handle.write(part[: len(part) // 2])
        self._handle.flush()
        self._step(f"write the second half of {self._name}")
        self._handle.write(part[len(part) // 2 :])
        return len(part)

    def flush(self) -> None:
        self._step(f"flush {self._name}")
        self._handle.flush()

    def fileno(self) -> int:
        return self._handle.fileno()


@contextmanager
def announced(step: Callable[[str], None]) -> Iterator[None]:
    """Call ``step`` with a name before every open, write, flush, fsync, rename and unlink."""
    real = {"open": Path.open, "replace": Path.replace, "unlink": Path.unlink, "fsync": os.fsync}

    def plain(path: Path) -> str:
        return path.name.split(".partial-")[0]

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "w" not in mode:
            return real["open"](path, mode, *rest, **named)
        step(f"open {plain(path)}")
        return _Handle(real["open"](path, mode, *rest, **named), step, plain(path))

    def replace(path: Path, target: Path) -> Path:
        step(f"rename {target.name}")
        return real["replace"](path, target)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        step(f"remove {plain(path)}")
        real["unlink"](path, missing_ok)

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        step(f"fsync the folder {path.name}" if path.is_dir() else f"fsync {plain(path)}")
        real["fsync"](descriptor)

    with (
        mock.patch.object(Path, "open", opened),
        mock.patch.object(Path, "replace", replace),
        mock.patch.object(Path, "unlink", unlink),
        mock.patch.object(os, "fsync", fsync),
    ):
        yield


def stopper(at: int, act: Callable[[], None]) -> Callable[[str], None]:
    """Return a step function that calls ``act`` instead of going on to step number ``at``, once."""
    count = iter(range(1_000_000))

    def step(name: str) -> None:
        if next(count) == at:
            act()

    return step


def failing(code: int) -> Callable[[], None]:
    """Return a function that fails as the system does with this errno."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


def steps_of(run: Callable[[], object]) -> list[str]:
    """Return the names of all steps that ``run`` takes."""
    names: list[str] = []
    with announced(names.append):
        run()
    return names


class PowerCut(BaseException):
    """The machine went dark."""


class PowerCutDisk:
    """What a disk holds after a power cut: bytes that no fsync followed are gone.

    Renames that no fsync of the folder followed are gone too, or, with ``names_are_kept``, all there, as file
    systems may do either. ``step`` is for `announced`; instead of going on to step number ``at`` it cuts the power.
    """

    def __init__(self, folder: Path, at: int, names_are_kept: bool) -> None:
        self._folder, self._at, self._names_are_kept = folder, at, names_are_kept
        self._count = 0
        self._synced_bytes: dict[int, bytes] = {}
        self.files: dict[str, bytes] = {}

    def step(self, name: str) -> None:
        """Follow the step that is taken right after this call, or cut the power."""
        if self._count == self._at:
            if self._names_are_kept:
                self.keep_names()
            raise PowerCut
        self._count += 1
        if name.startswith("write "):
            # The number of a file that is gone may come again.
            self._synced_bytes.pop(self._partial(name.split()[-1]).stat().st_ino, None)
        elif name.startswith("fsync the folder"):
            self.keep_names()
        elif name.startswith("fsync "):
            path = self._partial(name.split()[-1])
            self._synced_bytes[path.stat().st_ino] = path.read_bytes()

    def _partial(self, name: str) -> Path:
        (path,) = self._folder.glob(f"{name}.partial-*")
        return path

    def keep_names(self) -> None:
        """Let the names of the folder reach the disk as they are."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        self.files = {path.name: self._synced_bytes.get(path.stat().st_ino, b"") for path in paths}

    def restore(self) -> None:
        """Make the folder hold what the disk does."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name, content in self.files.items():
            (self._folder / name).write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a cache that is not hidden, as its lock is."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def _child(job: dict[str, Any]) -> dict[str, Any]:
    caches, total_rows = Path(job["caches"]), job["total_rows"]
    vector_format = job.get("format", "memmap")
    if job.get("file_limit"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], job["file_limit"]))
    if job["do"] == "steps":
        return {"steps": steps_of(lambda: write(caches, total_rows, vector_format))}
    if job["do"] == "read":
        outcomes: list[int] = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(read(caches, total_rows, vector_format)))
            for _ in range(job["threads"])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(outcomes) != job["threads"]:
            raise AssertionError("a reader failed")
        return {"opened": sum(outcomes)}
    act = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}[job.get("by", "kill")]
    with announced(stopper(job.get("at", -1), lambda: os.kill(os.getpid(), act))):
        return {"written": write(caches, total_rows, vector_format, job.get("pause", 0.0))}


def _fork(job: dict[str, Any]) -> tuple[int, int]:
    """Run ``job`` in a process of its own; return its id and the pipe on which it says how it went."""
    reading, writing = os.pipe()
    if process := os.fork():
        os.close(writing)
        return process, reading
    status = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = _child(job)
    except CacheError as error:
        outcome, status = {"error": str(error)}, REFUSED
    except KeyboardInterrupt:
        outcome, status = {}, INTERRUPTED
    except BaseException as error:
        outcome, status = {"error": f"{type(error).__name__}: {error}"}, UNEXPECTED
    os.write(writing, json.dumps(outcome).encode())
    os._exit(status)


def _serve(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run ``jobs`` all at once."""
    running = []
    for job in jobs:
        running.append((*_fork(job), job))
        time.sleep(job.get("head_start", 0.0))
    outcomes = []
    for process, pipe, job in running:
        if "kill_after" in job:
            time.sleep(job["kill_after"])
            os.kill(process, signal.SIGKILL)
        with os.fdopen(pipe, "rb") as handle:
            said = handle.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        outcomes.append({"status": status, **(json.loads(said) if said else {})})
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as warm:
        write(Path(warm), 1)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)
