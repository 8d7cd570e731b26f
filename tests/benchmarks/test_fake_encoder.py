from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.fake_encoder import DIM, write_cache
from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.layout import VectorFormat
from ragcun_cache.cache.verify import verify


@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_a_fake_cache_is_sound_and_its_rows_differ(tmp_path: Path, vector_format: VectorFormat) -> None:
    folder = write_cache(tmp_path, 50, 16, vector_format=vector_format)
    vectors_nd = EmbeddingCache(folder).array()
    assert verify(folder) == []
    assert vectors_nd.shape == (50, DIM)
    assert len(np.unique(vectors_nd, axis=0)) == 50
    assert np.abs(np.linalg.norm(vectors_nd, axis=1) - 1).max() < 2e-3


def test_the_same_call_writes_the_same_vectors(tmp_path: Path) -> None:
    first, second = (EmbeddingCache(write_cache(tmp_path / name, 20, 16)).array() for name in "ab")
    assert np.array_equal(first, second)
