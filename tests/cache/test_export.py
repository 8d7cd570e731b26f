from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.export import export
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role


@pytest.fixture(params=[(0, np.float16), (1, np.float32), (9, np.float16), (12, np.float32)])
def cache(request: pytest.FixtureRequest, cache_of, tmp_path: Path) -> EmbeddingCache:
    rows, dtype = request.param
    vectors_nd = np.random.default_rng(0).normal(size=(rows, 6))
    norms = np.linalg.norm(vectors_nd, axis=1).astype(np.float32)
    unit_nd = (vectors_nd / norms[:, None]).astype(dtype)
    ids = [f"id {row} 🦜\n" for row in range(rows)]
    return EmbeddingCache(cache_of(tmp_path, "any", Role.PASSAGE, ids, unit_nd, shard_rows=4, norms=norms))


def stored(cache: EmbeddingCache) -> np.ndarray:
    return cache.array(cache.manifest.dtype)


@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_npy(cache: EmbeddingCache, tmp_path: Path, suffix: str) -> None:
    written = export(cache, "npy", tmp_path / "out" / f"some.vectors{suffix}" if suffix else tmp_path / "out" / "some")
    vectors_nd = np.load(written[0], mmap_mode="r" if cache.rows else None, allow_pickle=False)
    assert vectors_nd.dtype == cache.manifest.dtype
    np.testing.assert_array_equal(vectors_nd, stored(cache))
    assert json.loads(written[1].read_text()) == cache.ids
    about = json.loads(written[2].read_text())
    assert (about["fingerprint"], about["spec"]) == (cache.fingerprint, cache.manifest.spec)
    assert about["content_sha256"] == cache.content_sha256
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written)


def test_safetensors(cache: EmbeddingCache, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    written = export(cache, "safetensors", tmp_path / "out.safetensors")
    tensors = load_file(written[0])
    np.testing.assert_array_equal(tensors["vectors"], stored(cache))
    np.testing.assert_array_equal(tensors["norms"], cache.norms)
    assert json.loads(written[1].read_text()) == cache.ids


def test_parquet(cache: EmbeddingCache, tmp_path: Path) -> None:
    written = export(cache, "parquet", tmp_path / "out.parquet")
    frame = pl.read_parquet(written[0])
    assert frame["id"].to_list() == cache.ids
    vectors_nd = np.frombuffer(b"".join(frame["vector"]), cache.manifest.dtype).reshape(-1, cache.dim)
    np.testing.assert_array_equal(vectors_nd, stored(cache))
    rows = cache.metadata()
    for name in ("norm", "n_tokens", "truncated"):
        assert frame[name].to_list() == rows[name].to_list()
    assert frame["text_sha256"].to_list() == [digest.hex() for digest in rows["text_sha256"]]


def test_hf_dataset(cache: EmbeddingCache, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    written = export(cache, "hf-dataset", tmp_path / "out")
    dataset = datasets.load_from_disk(str(written[0]))
    assert dataset.features["vector"] == datasets.List(datasets.Value(cache.manifest.dtype), length=cache.dim)
    assert list(dataset["id"]) == cache.ids
    found_nd = dataset.with_format("numpy")[:]["vector"] if cache.rows else np.empty((0, 6))
    np.testing.assert_array_equal(np.asarray(found_nd, cache.manifest.dtype), stored(cache))


def test_a_missing_package_is_named(cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(CacheError, match=r"ragcun-cache\[hf\]"):
        export(cache, "hf-dataset", tmp_path / "out")


@pytest.mark.parametrize("to", ["npy", "parquet", "safetensors", "hf-dataset"])
def test_nothing_is_overwritten_unless_asked(cache: EmbeddingCache, tmp_path: Path, to: str) -> None:
    if to == "hf-dataset":
        pytest.importorskip("datasets")
    out = tmp_path / "out"
    first = export(cache, to, out)
    with pytest.raises(CacheError, match="something is there already"):
        export(cache, to, out)
    assert export(cache, to, out, force=True) == first
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_folder_of_something_else_is_never_removed(cache: EmbeddingCache, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(CacheError, match="not an exported dataset"):
        export(cache, "hf-dataset", tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_without_a_name_is_not_taken_for_a_file(cache_of, tmp_path: Path, out: str) -> None:
    folder = cache_of(tmp_path, "any", Role.PASSAGE, ["a"], np.eye(1, dtype=np.float32))
    with pytest.raises(CacheError, match="no name of a file") as error:
        export(EmbeddingCache(folder), "npy", Path(out))
    assert str(error.value.fix).endswith(str(Path(out, "vectors")))


def test_damage_is_found_and_nothing_is_left(cache_of, tmp_path: Path) -> None:
    folder = cache_of(tmp_path, "any", Role.PASSAGE, ["a", "b"], np.eye(2, dtype=np.float32))
    path = folder / "vectors-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CacheError, match="a shard is damaged"):
        export(EmbeddingCache(folder), "npy", tmp_path / "out" / "x.npy")
    assert not list((tmp_path / "out").iterdir())
