from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcun_cache.cache import CachePair, EmbeddingCache
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role


@settings(max_examples=40)
@given(
    rows=st.integers(0, 40),
    shard_rows=st.integers(1, 20),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_read_is_what_was_written(rows: int, shard_rows: int, dtype: type, seed: int, cache_of) -> None:
    vectors_nd = np.random.default_rng(seed).normal(size=(rows, 5)).astype(dtype)
    ids = [f"id {row} 🦜" for row in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(cache_of(Path(folder), "any", Role.PASSAGE, ids, vectors_nd, shard_rows=shard_rows))
        assert cache.ids == ids
        np.testing.assert_array_equal(cache.array(dtype), vectors_nd)
        order = np.random.default_rng(seed).permutation(rows)
        np.testing.assert_array_equal(cache.gather(order, dtype), vectors_nd[order])
        np.testing.assert_array_equal(cache.positions([ids[row] for row in order]), order)


def test_an_unknown_id_is_named(tiny_pair) -> None:
    pair: CachePair = tiny_pair()
    with pytest.raises(CacheError, match="no passage with id 'nowhere'"):
        pair.passage.positions(["p1", "nowhere"])


def test_roles_never_share_a_cache(tiny_pair) -> None:
    pair: CachePair = tiny_pair()
    assert pair.query.folder != pair.passage.folder
    assert pair.query.encoder == pair.passage.encoder
    assert pair.query.fingerprint != pair.passage.fingerprint


def test_a_truncated_shard_is_refused(tiny_pair) -> None:
    folder = tiny_pair().passage.folder
    path = folder / "vectors-00001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="a shard is damaged"):
        EmbeddingCache(folder)


def test_a_changed_manifest_is_refused(tiny_pair) -> None:
    folder = tiny_pair().passage.folder
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"dim": 32', b'"dim": 33'))
    with pytest.raises(CacheError, match="fails its own checksum"):
        EmbeddingCache(folder)


def test_vectors_that_are_not_finite_never_enter(cache_of, tmp_path: Path) -> None:
    vectors_nd = np.ones((3, 4), np.float32)
    vectors_nd[1, 2] = np.nan
    with pytest.raises(CacheError, match="row 'b'"):
        cache_of(tmp_path, "any", Role.QUERY, ["a", "b", "c"], vectors_nd)


def test_a_finished_cache_is_reopened_not_rewritten(cache_of, tmp_path: Path) -> None:
    vectors_nd = np.eye(4, dtype=np.float32)
    ids = ["a", "b", "c", "d"]
    folder = cache_of(tmp_path, "any", Role.QUERY, ids, vectors_nd, shard_rows=2)
    before = {path.name: sha256(path.read_bytes()).digest() for path in folder.iterdir()}
    cache_of(tmp_path, "any", Role.QUERY, ids, vectors_nd, shard_rows=2)
    assert before == {path.name: sha256(path.read_bytes()).digest() for path in folder.iterdir()}
