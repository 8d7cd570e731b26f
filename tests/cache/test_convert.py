from __future__ import annotations

import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcun_cache.cache import CacheLayout, EmbeddingCache
from ragcun_cache.cache.convert import convert
from ragcun_cache.cache.verify import verify
from ragcun_cache.cache.writer import writer_lock
from ragcun_cache.collections import Collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home
from ragcun_cache.role import Role

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def unit_vectors(rows: int, dim: int = 6, dtype: type = np.float16) -> np.ndarray:
    vectors_nd = np.random.default_rng(rows).normal(size=(rows, dim))
    return (vectors_nd / np.linalg.norm(vectors_nd, axis=1, keepdims=True)).astype(dtype)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: sha256(path.read_bytes()).digest() for path in folder.iterdir()}


@pytest.fixture
def cache_folder(cache_of, tmp_path: Path) -> Path:
    ids = [f"id {row} 🦜\n" for row in range(10)]
    return cache_of(tmp_path, "any", Role.PASSAGE, ids, unit_vectors(10), shard_rows=4)


@settings(max_examples=30)
@given(
    rows=st.sampled_from([0, 1, 3, 4, 5, 8]),
    dtype=st.sampled_from([np.float16, np.float32]),
    ids=st.lists(UNICODE, min_size=8, max_size=8, unique=True),
)
def test_there_and_back_changes_no_bit(rows: int, dtype: type, ids: list[str], cache_of) -> None:
    vectors_nd = unit_vectors(rows, dtype=dtype)
    with tempfile.TemporaryDirectory() as base:
        folder = cache_of(Path(base), "any", Role.PASSAGE, ids[:rows], vectors_nd, shard_rows=4)
        before = content_of(folder)
        shards = -(-rows // 4)
        assert convert(folder, "parquet") == shards
        cache = EmbeddingCache(folder)
        assert cache.manifest.format == "parquet"
        assert cache.ids == ids[:rows]
        assert cache.array(dtype).tobytes() == vectors_nd.tobytes()
        assert not list(folder.glob("*.npy"))
        assert verify(folder) == []
        assert convert(folder, "parquet") == 0
        assert convert(folder, "memmap") == shards
        assert content_of(folder) == before


class Dead(BaseException):
    """From here on nothing touches the disk, not even cleaning up, as after a SIGKILL."""


def convert_and_die(folder: Path, target: str, at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Convert until the ``at``-th sync, rename or removal; return whether it was done before that."""
    done = 0

    def counted(step):
        def run(*args, **kwargs):
            nonlocal done
            done += 1
            if done >= at:
                raise Dead
            return step(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            convert(folder, target)
        except Dead:
            return False
    return True


@pytest.mark.parametrize("target", ["parquet", "memmap"])
def test_a_crash_at_any_step_leaves_a_whole_cache_and_converting_goes_on(
    cache_folder: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target == "memmap":
        convert(cache_folder, "parquet")
    whole_nd = EmbeddingCache(cache_folder).array()
    crashes = mixed = 0
    for at in range(1, 100):
        folder = tmp_path / str(at) / cache_folder.name
        shutil.copytree(cache_folder, folder)
        finished = convert_and_die(folder, target, at, monkeypatch)
        crashes += not finished
        cache = EmbeddingCache(folder)
        np.testing.assert_array_equal(cache.array(), whole_nd)
        mixed += len({shard.vectors.name.rsplit(".")[-1] for shard in cache.manifest.shards}) == 2
        convert(folder, target)
        cache = EmbeddingCache(folder)
        np.testing.assert_array_equal(cache.array(), whole_nd)
        named = {name for s in cache.manifest.shards for name in (s.vectors.name, s.metadata.name)}
        left = {path.name for path in folder.iterdir()} - {"manifest.json", "manifest.copy.json", ".lock"}
        assert left == named
        assert verify(folder) == []
        if finished:
            break
    assert finished
    # Three shards of ten steps each (three files synced and renamed, their folder synced, the old one removed).
    assert crashes > 30
    assert mixed > 15


def test_damage_is_not_copied_under_a_new_checksum(cache_folder: Path) -> None:
    path = cache_folder / "vectors-00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match="a shard is damaged"):
        convert(cache_folder, "parquet")
    EmbeddingCache(cache_folder)
    assert path.exists()


def test_a_cache_that_is_being_written_is_refused(cache_folder: Path) -> None:
    with writer_lock(CacheLayout(cache_folder)), pytest.raises(CacheError, match="another process is writing"):
        convert(cache_folder, "parquet")


def test_a_full_disk_is_said_and_the_cache_stays(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise OSError(28, "No space left on device")
        real(handle)

    expected_nd = EmbeddingCache(cache_folder).array()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CacheError, match="could not be converted"):
            convert(cache_folder, "parquet")
    np.testing.assert_array_equal(EmbeddingCache(cache_folder).array(), expected_nd)
    convert(cache_folder, "parquet")
    assert verify(cache_folder) == []


def test_no_cache_is_said_and_no_folder_made(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="there is no cache here"):
        convert(tmp_path / "nothing", "parquet")
    assert not (tmp_path / "nothing").exists()


def test_an_encode_can_ask_for_either_format(tiny_collection, tiny_encoder: Path, home: Home) -> None:
    collection = Collection("tiny", tiny_collection(n_passages=6, splits={"test": 3}))
    config = EncodeConfig(model=str(tiny_encoder), format="parquet", shard_rows=4)
    for report in encode_collection(collection, home, config):
        assert report.manifest.format == "parquet"
        assert not list(report.folder.glob("*.npy"))
        assert verify(report.folder) == []
        before_nd = EmbeddingCache(report.folder).array(np.float16)
        convert(report.folder, "memmap")
        np.testing.assert_array_equal(EmbeddingCache(report.folder).array(np.float16), before_nd)
    assert [report.encoded for report in encode_collection(collection, home, config)] == [0, 0]
