from __future__ import annotations

import os
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
from ragcun_cache.errors import CacheError
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


@settings(max_examples=30, deadline=None)
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


class Cut(BaseException):
    """A stop that no code of ours catches by kind."""


def test_a_cut_at_any_step_leaves_a_whole_cache_and_goes_on(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_nd = EmbeddingCache(cache_folder).array()
    steps = {"replace": Path.replace, "unlink": Path.unlink}
    cuts = 0
    for target in ("parquet", "memmap"):
        for at in range(1, 40):
            done = 0

            def counted(step: str, at: int = at):
                def run(*args, **kwargs):
                    nonlocal done
                    done += 1
                    if done == at:
                        raise Cut
                    return steps[step](*args, **kwargs)

                return run

            with monkeypatch.context() as patch:
                for step in steps:
                    patch.setattr(Path, step, counted(step))
                try:
                    convert(cache_folder, target)
                    finished = True
                except Cut:
                    finished, cuts = False, cuts + 1
            np.testing.assert_array_equal(EmbeddingCache(cache_folder).array(), expected_nd)
            if finished:
                break
        assert finished
        convert(cache_folder, target)
        named = {
            name for s in EmbeddingCache(cache_folder).manifest.shards for name in (s.vectors.name, s.metadata.name)
        }
        left = {path.name for path in cache_folder.iterdir()} - {"manifest.json", "manifest.copy.json", ".lock"}
        assert left == named
    assert cuts > 8


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
