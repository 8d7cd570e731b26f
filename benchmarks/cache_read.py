"""Reading vectors: both cache formats beside one ``.npy`` and beside the usual Parquet column of lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fake_encoder import DIM, write_cache
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, take_turns
from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.markdown import paragraphs, table

TITLE = "Reading a cache"
PACKAGES = ("numpy", "pyarrow")

_ROWS = 100_000
_GATHERED = 10_000
# What an encode of this many rows picks.
_SHARD_ROWS = 2_048


def run(setting: Setting, *, rows: int = _ROWS, gathered: int = _GATHERED) -> str:
    """Return the section: all rows, and rows at random positions, from the path to an array in memory."""
    memmap = write_cache(setting.scratch, rows, _SHARD_ROWS)
    parquet = write_cache(setting.scratch, rows, _SHARD_ROWS, vector_format="parquet")
    whole_nd = EmbeddingCache(memmap).array(np.float16)
    npy = setting.scratch / "plain.npy"
    np.save(npy, whole_nd)
    lists = setting.scratch / "lists.parquet"
    flat = pa.array(whole_nd.astype(np.float32).reshape(-1))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * DIM)
    pq.write_table(pa.table({"vector": pa.ListArray.from_arrays(offsets, flat)}), lists)
    del flat, offsets
    positions = np.random.default_rng(0).integers(0, rows, gathered)

    def read_lists() -> np.ndarray:
        column = pq.read_table(lists).column("vector").combine_chunks()
        return np.asarray(column.flatten().to_numpy()).reshape(-1, DIM)

    caches = {"cache, memmap": memmap, "cache, Parquet": parquet}
    for folder in caches.values():
        assert np.array_equal(EmbeddingCache(folder).array(np.float16), whole_nd)
    assert np.array_equal(read_lists(), whole_nd)
    del whole_nd

    everything = take_turns(
        {
            "np.load": lambda: np.load(npy),
            "cache, memmap": lambda: EmbeddingCache(memmap).array(np.float16),
            "cache, Parquet": lambda: EmbeddingCache(parquet).array(np.float16),
            "Parquet, `list<float>`": read_lists,
        }
    )
    some = take_turns(
        {
            "np.load": lambda: np.load(npy, mmap_mode="r")[positions],
            "cache, memmap": lambda: EmbeddingCache(memmap).gather(positions, np.float16),
            "cache, Parquet": lambda: EmbeddingCache(parquet).gather(positions, np.float16),
            "Parquet, `list<float>`": lambda: read_lists()[positions],
        }
    )
    size = rows * DIM * 2
    about = (
        f"{rows:,} rows × {DIM}, float16 ({size / 1e6:,.0f} MB) in shards of {_SHARD_ROWS:,}, page cache warm, "
        f"medians of {ROUNDS}. A cache is opened anew each time. The peer is `np.load` of one `.npy` of the same rows "
        "(memory-mapped for random rows). `list<float>` is how vectors are usually put in Parquet: float32, one file, "
        "read with pyarrow, left as float32."
    )
    return paragraphs(
        about,
        table(
            ["whole array", "ms", "GB/s of float16", "time ÷ np.load"],
            [
                [name, timing.spread.scaled(1e3), timing.rate(size / 1e9), timing.over(everything["np.load"])]
                for name, timing in everything.items()
            ],
        ),
        table(
            [f"{gathered:,} random rows", "ms", "time ÷ np.load"],
            [[name, timing.spread.scaled(1e3), timing.over(some["np.load"])] for name, timing in some.items()],
        ),
    )
