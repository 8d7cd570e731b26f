"""Exact search of a corpus of MS MARCO's size, from the cache, in bounded memory; a slice of it beside FAISS Flat."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.alone import run_alone
from benchmarks.cache_scale import MS_MARCO_ROWS
from benchmarks.fake_encoder import DIM, write_cache
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, take_turns
from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.retrieval.run import Run
from ragcun_cache.retrieval.search import BLOCK_ROWS, search, search_blocks
from ragcun_cache.similarity import Similarity

TITLE = "Searching a large corpus"
PACKAGES = ("numpy", "faiss-cpu")

_QUERIES, _DEPTH = 1_000, 100
_SLICE_ROWS = 100_000
_SHARD_ROWS = 65_536
# Of the disk's free space at most this share is filled.
_SHARE_OF_DISK = 0.5
_BYTES_A_ROW = DIM * 2 + 128


def run(setting: Setting, *, queries: int = _QUERIES, slice_rows: int = _SLICE_ROWS) -> str:
    """Return the section. Every query is a passage with noise, so what must come first is known."""
    room = int(shutil.disk_usage(setting.scratch).free * _SHARE_OF_DISK) // _BYTES_A_ROW
    rows = min(setting.rows or MS_MARCO_ROWS, max(room, 1))
    folder = write_cache(setting.scratch, rows, _SHARD_ROWS)
    planted_q = _planted(rows, queries)
    query_qd = _noisy(EmbeddingCache(folder).gather(planted_q))
    np.save(setting.scratch / "queries.npy", query_qd)
    whole = run_alone(_search, folder, setting.scratch / "queries.npy")
    _require_right(whole.result, planted_q, rows)
    reopened = EmbeddingCache(folder)
    slice_nd = next(reopened.blocks(slice_rows))
    passage_ids, query_ids = reopened.ids[: len(slice_nd)], [f"query {i}" for i in range(queries)]
    took = take_turns(
        {
            "ragcun-cache": lambda: search(
                query_qd, query_ids, slice_nd, passage_ids, Similarity.DOT, _DEPTH, drop_identical_ids=False
            ),
            "FAISS `IndexFlatIP`": lambda: _faiss(query_qd, slice_nd),
        }
    )
    work = queries * len(slice_nd)
    shards = len(reopened.manifest.shards)
    about = (
        f"{rows:,} passages × {DIM}, float16, in a cache of {shards} shards; {queries:,} queries; exact top {_DEPTH}. "
        f"The search of all reads the cache once, in blocks of {BLOCK_ROWS:,} rows, and was measured once, in a "
        "process of its own, from opening the cache to ranked ids. Every query is a passage with noise, those on each "
        "side of block and shard borders among them: all came first, and every list was full. The slice is the first "
        f"{len(slice_nd):,} passages, float32 in memory on both sides, medians of {ROUNDS}; FAISS's time includes "
        "adding them, and its scores are not exact."
    )
    rate = rows * queries / whole.seconds
    return paragraphs(
        about,
        table(
            ["all passages", "seconds", "query–passage pairs a second", "peak memory, GB"],
            [["ragcun-cache", f"{whole.seconds:.1f}", f"{rate / 1e6:.1f} M", f"{whole.peak_bytes / 1e9:.2f}"]],
        ),
        table(
            ["the slice", "seconds", "M pairs a second", "time ÷ FAISS"],
            [
                [name, timing.spread, timing.rate(work / 1e6), timing.over(took["FAISS `IndexFlatIP`"])]
                for name, timing in took.items()
            ],
        ),
    )


def _planted(rows: int, queries: int) -> NDArray[np.int64]:
    """Return the row that each query is made from: on either side of borders, and at random."""
    borders = {0, rows - 1}
    for size in (BLOCK_ROWS, _SHARD_ROWS):
        borders |= {row for border in range(size, rows, size) for row in (border - 1, border)}
    draw = np.random.default_rng(0)
    chosen = draw.permutation(sorted(borders))[: queries // 2]
    return np.concatenate([chosen, draw.integers(0, rows, queries - len(chosen))])


def _noisy(vectors_qd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return unit vectors at a cosine of about 0.7 to the given ones: far above that of any two of the corpus."""
    noise_qd = np.random.default_rng(1).standard_normal(vectors_qd.shape, dtype=np.float32) / DIM**0.5
    noisy_qd = vectors_qd + noise_qd
    unit_qd: NDArray[np.float32] = noisy_qd / np.linalg.norm(noisy_qd, axis=1, keepdims=True)
    return unit_qd


def _search(folder: Path, queries: Path) -> Run:
    cache, query_qd = EmbeddingCache(folder), np.load(queries, allow_pickle=False)
    query_ids = [f"query {i}" for i in range(len(query_qd))]
    blocks = cache.blocks(BLOCK_ROWS)
    return search_blocks(query_qd, query_ids, blocks, cache.ids, Similarity.DOT, _DEPTH, drop_identical_ids=False)


def _faiss(query_qd: NDArray[np.float32], passage_nd: NDArray[np.float32]) -> NDArray[np.int64]:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(passage_nd)
    rows_qk: NDArray[np.int64] = index.search(query_qd, _DEPTH)[1]
    return rows_qk


def _require_right(run: Run, planted_q: NDArray[np.int64], rows: int) -> None:
    for (query_id, scores), row in zip(run.items(), planted_q.tolist(), strict=True):
        if next(iter(scores)) != str(row) or len(scores) != min(_DEPTH, rows):
            raise AssertionError(f"{query_id}: passage {row} should come first, of {min(_DEPTH, rows)}")
