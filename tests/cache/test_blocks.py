from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.role import Role


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("block_rows", [1, 7, 64, 128, 199, 200, 1000])
def test_blocks_are_the_array_wherever_the_shards_end(
    tmp_path: Path, cache_of: Callable[..., Path], rows: int, block_rows: int
) -> None:
    vectors_nd = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float16)
    folder = cache_of(tmp_path, "c", Role.PASSAGE, [f"p{i}" for i in range(rows)], vectors_nd, shard_rows=64)
    blocks = list(EmbeddingCache(folder).blocks(block_rows))
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert [len(block) for block in blocks[:-1]] == [min(block_rows, rows)] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate(blocks), vectors_nd.astype(np.float32))
