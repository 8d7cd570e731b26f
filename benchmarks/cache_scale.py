"""A cache of MS MARCO's size: written in a stream, opened, verified, gathered from, handed to torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.alone import run_alone
from benchmarks.fake_encoder import DIM, write_cache
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, Spread, Timing, take_turns
from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.verify import Damage, verify
from ragcun_cache.markdown import paragraphs, table

TITLE = "A large cache"
PACKAGES = ("numpy", "pyarrow", "torch")

MS_MARCO_ROWS = 8_841_823
_GATHERED = 100_000
_TENSOR_ROWS = 500_000
# What an encode of MS MARCO, and one of 500,000 rows, picks.
_SHARD_ROWS, _TENSOR_SHARD_ROWS = 65_536, 8_192
# Of the disk's free space at most this share is filled.
_SHARE_OF_DISK = 0.5
_BYTES_A_ROW = DIM * 2 + 128


def run(setting: Setting) -> str:
    """Return the section. All that is read is read from a warm page cache, if memory is enough for it."""
    room = int(shutil.disk_usage(setting.scratch).free * _SHARE_OF_DISK) // _BYTES_A_ROW - _TENSOR_ROWS
    rows = min(setting.rows or MS_MARCO_ROWS, max(room, 1))
    written = run_alone(write_cache, setting.scratch, rows, _SHARD_ROWS)
    folder = written.result
    size = sum(path.stat().st_size for path in folder.iterdir())
    opened = take_turns({"open": lambda: EmbeddingCache(folder)})["open"]
    checked = run_alone(verify, folder)
    _require_sound(checked.result)
    checks = take_turns(_checks(folder))
    gathered, tensor = _gather(folder, rows), _tensor(setting.scratch, rows)
    memory = _memory_bytes()
    about = (
        f"{rows:,} rows × {DIM}, float16, {size / 1e9:.1f} GB in {len(EmbeddingCache(folder).manifest.shards)} shards, "
        f"by a fake encoder; {memory / 1e9:.1f} GB of memory. Writing and the peak of verifying were measured once, "
        f"each in a process of its own; all else are medians of {ROUNDS}."
    )
    return paragraphs(
        about,
        table(
            ["", "seconds", "GB/s", "peak memory, GB"],
            [
                [
                    "write, fake encoder included",
                    f"{written.seconds:.1f}",
                    *_once(written.seconds, size, written.peak_bytes),
                ],
                ["verify", f"{checked.seconds:.1f}", *_once(checked.seconds, size, checked.peak_bytes)],
                ["open", opened.spread, "", ""],
            ],
        ),
        table(
            ["every byte hashed (dd: read)", "seconds", "GB/s", "verify's GB/s ÷ this"],
            [
                [name, timing.spread, timing.rate(size / 1e9), timing.over(checks["verify"])]
                for name, timing in checks.items()
            ],
        ),
        table(["", "seconds", "time ÷ memory"], [*gathered, *tensor]),
    )


def _once(seconds: float, size: int, peak: int) -> list[object]:
    return [f"{size / 1e9 / seconds:.2f}", f"{peak / 1e9:.2f}"]


def _require_sound(damages: list[Damage]) -> None:
    if damages:
        raise AssertionError(f"a cache that was just written is not sound: {damages[0]}")


def _checks(folder: Path) -> dict[str, Callable[[], object]]:
    """Return verify, and the tools of this machine that read or hash the same files."""
    files = sorted(str(path) for path in folder.iterdir() if path.is_file())
    cores = str(os.cpu_count() or 1)
    joined = "\0".join(files)

    def command(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run(words, input=joined, check=True, text=True, stdout=subprocess.DEVNULL)

    peers = {
        "b3sum": ("b3sum", ("xargs", "-0", "b3sum")),
        f"sha256sum, {cores} processes": ("sha256sum", ("xargs", "-0", "-n", "1", "-P", cores, "sha256sum")),
        "dd, one process": (
            "dd",
            ("xargs", "-0", "-I", "FILE", "dd", "if=FILE", "of=/dev/null", "bs=4M", "status=none"),
        ),
    }
    there = {name: command(*words) for name, (tool, words) in peers.items() if shutil.which(tool)}
    return {"verify": lambda: _require_sound(verify(folder)), **there}


def _gather(folder: Path, rows: int) -> list[list[object]]:
    """Time rows at random positions against the same number of rows out of an array in memory."""
    draw = np.random.default_rng(0)
    positions = draw.integers(0, rows, _GATHERED)
    array_nd = EmbeddingCache(folder).gather(np.arange(min(rows, _TENSOR_ROWS)), np.float16)
    inside = draw.integers(0, len(array_nd), _GATHERED)
    cache = EmbeddingCache(folder)
    took = take_turns(
        {
            "memory": lambda: array_nd[inside].astype(np.float32),
            "cache": lambda: cache.gather(positions),
        }
    )
    return [
        [f"{_GATHERED:,} random rows, gathered as float32", took["cache"].spread, took["cache"].over(took["memory"])],
        [f"the same number out of {len(array_nd):,} in memory", took["memory"].spread, "1"],
    ]


def _tensor(scratch: Path, rows: int) -> list[list[object]]:
    """Time a cache of its own, as a torch tensor, against torch's copy of an equal tensor."""
    import torch

    rows = min(rows, _TENSOR_ROWS)
    cache = EmbeddingCache(write_cache(scratch, rows, _TENSOR_SHARD_ROWS, collection="tensor"))
    source_nd = cache.tensor()
    took: dict[str, Timing] = take_turns(
        {"memory": lambda: torch.empty_like(source_nd).copy_(source_nd), "cache": cache.tensor}
    )
    ratio: Spread = took["cache"].over(took["memory"])
    return [
        [f"a cache of {rows:,} rows handed to torch as float16", took["cache"].spread, ratio],
        ["torch's copy of an equal tensor in memory", took["memory"].spread, "1"],
    ]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
