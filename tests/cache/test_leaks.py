"""Opening and reading a cache thousands of times holds on to nothing, and a few rows do not cost the whole file."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache, ShardRecord
from ragcun_cache.cache.manifest import FileRecord

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")


def held(folder: Path) -> tuple[int, int]:
    """Open file descriptors of this process, and files of ``folder`` mapped into its memory."""
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return descriptors, Path("/proc/self/maps").read_text().count(str(folder))


@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_thousands_of_opens_leak_nothing(driver, quick_path: Path, vector_format: str) -> None:
    driver.write(quick_path, 60, vector_format)
    folder = driver.layout_of(quick_path, 60).folder

    def use() -> None:
        cache = EmbeddingCache(folder)
        cache.gather([0, 30, 59])
        cache.positions(["row 0 🦜"])
        next(cache.shards())

    use()
    before = held(folder)
    assert before[1] == 0
    for _ in range(1000):
        use()
    assert held(folder) == before


def test_rows_that_are_held_keep_their_map_and_no_longer(driver, quick_path: Path) -> None:
    driver.write(quick_path, 60)
    folder = driver.layout_of(quick_path, 60).folder
    vectors_nd = EmbeddingCache(folder).shard(0)
    assert held(folder)[1] == 1
    assert vectors_nd.shape == (24, 16)
    del vectors_nd
    assert held(folder)[1] == 0


_GATHER = """
import re, sys
from pathlib import Path
import numpy as np
from ragcun_cache.cache import EmbeddingCache

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

cache = EmbeddingCache(Path(sys.argv[1]))
rng = np.random.default_rng(0)
cache.gather(rng.integers(0, cache.rows, size=10))
before = peak()
for _ in range(20):
    cache.gather(rng.integers(0, cache.rows, size=100))
print(peak() - before)
"""


def test_random_rows_do_not_drag_the_file_into_memory(driver, tmp_path: Path) -> None:
    rows, dim, dtype = 200_000, 768, np.dtype(np.float16)
    layout = driver.layout_of(tmp_path, rows)
    asked = driver.manifest_of(rows).model_copy(update={"dim": dim, "shard_rows": rows})
    layout.folder.mkdir(parents=True)
    path = layout.vectors(0, "memmap")
    with path.open("wb") as handle:  # 307 MB of zeros that take no room on the disk
        np.lib.format.write_array_header_1_0(handle, {"descr": dtype.str, "fortran_order": False, "shape": (rows, dim)})
        handle.truncate(handle.tell() + rows * dim * dtype.itemsize)
    layout.rows(0).write_bytes(b"never read here")
    shard = ShardRecord(
        rows=rows,
        vectors=FileRecord(name=path.name, bytes=path.stat().st_size, sha256=""),
        metadata=FileRecord(name=layout.rows(0).name, bytes=layout.rows(0).stat().st_size, sha256=""),
        tokens=0,
        truncated=0,
        norm_min=1.0,
        norm_max=1.0,
    )
    asked.model_copy(update={"shards": (shard,), "complete": True}).write(layout)
    printed = subprocess.run(
        [sys.executable, "-c", _GATHER, str(layout.folder)], check=True, capture_output=True, text=True
    ).stdout
    assert float(printed) < 40, f"{printed} MB for 100 rows at a time of a file of 307 MB"
