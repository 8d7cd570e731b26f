from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.convert import convert
from ragcun_cache.cache.publish import publish
from ragcun_cache.cache.verify import verify
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role


@pytest.fixture(params=["memory", "file", "path"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        name = uuid.uuid4().hex
        yield f"memory://{name}/cache"
        fsspec.filesystem("memory").rm(f"/{name}", recursive=True)
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/there/cache"


def make_cache(cache_of, base: Path, seed: int = 0, rows: int = 10) -> Path:
    vectors_nd = np.random.default_rng(seed).normal(size=(rows, 6))
    unit_nd = (vectors_nd / np.linalg.norm(vectors_nd, axis=1, keepdims=True)).astype(np.float16)
    ids = [f"id {row}" for row in range(rows)]
    return cache_of(base / str(seed), "any", Role.PASSAGE, ids, unit_nd, spec={"seed": seed}, shard_rows=4)


def remote(url: str) -> EmbeddingCache:
    return EmbeddingCache(url if "://" in url else f"file://{url}")


def same(left: EmbeddingCache, right: EmbeddingCache) -> bool:
    order = [7, 0, 9]
    return (
        left.ids == right.ids
        and left.array().tobytes() == right.array().tobytes()
        and left.gather(order).tobytes() == right.gather(order).tobytes()
        and left.metadata().equals(right.metadata())
    )


@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_what_is_published_is_what_is_read(cache_of, tmp_path: Path, url: str, vector_format: str) -> None:
    folder = make_cache(cache_of, tmp_path)
    convert(folder, vector_format)
    report = publish(folder, url)
    assert (report.sent, report.kept) == (6, 0)
    assert same(remote(url), EmbeddingCache(folder))
    again = publish(folder, url)
    assert (again.sent, again.kept, again.sent_bytes) == (0, 6, 0)


def test_a_published_folder_is_a_cache_like_any_other(cache_of, tmp_path: Path) -> None:
    folder = make_cache(cache_of, tmp_path)
    publish(folder, f"file://{tmp_path}/share/{folder.name}")
    there = tmp_path / "share" / folder.name
    assert verify(there) == []
    assert {path.name for path in there.iterdir()} == {path.name for path in folder.iterdir()} - {".lock"}


class Cut(BaseException):
    """A stop that no code of ours catches by kind."""


def test_a_cut_at_any_step_shows_no_reader_a_mixture(cache_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make_cache(cache_of, tmp_path, seed=1), make_cache(cache_of, tmp_path, seed=2)
    url = f"memory://{uuid.uuid4().hex}/cache"
    kind = type(fsspec.filesystem("memory"))
    steps = {name: getattr(kind, name) for name in ("put_file", "pipe_file", "rm_file")}
    cuts = withdrawn = 0
    for at in range(1, 100):
        publish(old, url)
        done = 0

        def counted(name: str, at: int = at):
            def run(*args, **kwargs):
                nonlocal done
                done += 1
                if done == at:
                    raise Cut
                return steps[name](*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(kind, name, counted(name))
            try:
                publish(new, url)
                break
            except Cut:
                cuts += 1
        try:
            cache = EmbeddingCache(url)
            assert same(cache, EmbeddingCache(old)) or same(cache, EmbeddingCache(new))
        except CacheError as error:
            withdrawn += 1
            assert "there is no cache here" in str(error)
        publish(new, url)
        assert same(EmbeddingCache(url), EmbeddingCache(new))
    # Two manifests and three shards of the old cache go, three come; a manifest ahead of them, two after them.
    assert (cuts, withdrawn) == (12, 8)


def test_an_interrupted_publish_sends_only_what_is_missing(
    cache_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_cache(cache_of, tmp_path)
    url = f"memory://{uuid.uuid4().hex}/cache"
    kind = type(fsspec.filesystem("memory"))
    real, sent = kind.put_file, 0

    def cut(*args, **kwargs):
        nonlocal sent
        sent += 1
        if sent == 5:
            raise OSError("the line is down")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "put_file", cut)
        with pytest.raises(CacheError, match="run the same command again"):
            publish(folder, url)
    with pytest.raises(CacheError, match="there is no cache here"):
        EmbeddingCache(url)
    report = publish(folder, url)
    assert (report.sent, report.kept) == (2, 4)


def test_a_file_of_the_same_size_but_another_cache_is_sent(cache_of, tmp_path: Path, url: str) -> None:
    publish(make_cache(cache_of, tmp_path, seed=1), url)
    folder = make_cache(cache_of, tmp_path, seed=2)
    # Ids are the same, so the rows files are too; the vectors are not.
    assert publish(folder, url).sent == 3
    assert same(remote(url), EmbeddingCache(folder))


def test_files_that_are_no_longer_named_go(cache_of, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/cache"
    publish(make_cache(cache_of, tmp_path, seed=1, rows=40), url)
    publish(make_cache(cache_of, tmp_path, seed=2, rows=10), url)
    names = [path.rsplit("/", 1)[-1] for path in fsspec.filesystem("memory").ls(url, detail=False)]
    assert sum(name.startswith("vectors-") for name in names) == 3


def test_a_damaged_cache_is_not_published(cache_of, tmp_path: Path, url: str) -> None:
    folder = make_cache(cache_of, tmp_path)
    path = folder / "vectors-00002.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match="a shard is damaged"):
        publish(folder, url)
    with pytest.raises(CacheError, match="there is no cache here"):
        remote(url)


def test_remote_damage_is_found_when_it_is_read(cache_of, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/cache"
    publish(make_cache(cache_of, tmp_path), url)
    files = fsspec.filesystem("memory")
    content = bytearray(files.cat_file(f"{url}/vectors-00001.npy"))
    content[-1] ^= 1
    files.pipe_file(f"{url}/vectors-00001.npy", bytes(content))
    cache = EmbeddingCache(url)
    with pytest.raises(CacheError, match="a shard is damaged"):
        cache.array()


@pytest.mark.parametrize("knows_sizes", [True, False])
def test_a_file_system_that_lists_little_can_be_read(
    cache_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_sizes: bool
) -> None:
    """That of sftp:// has no ``refresh``, that of https:// no sizes."""
    url = f"memory://{uuid.uuid4().hex}/cache"
    folder = make_cache(cache_of, tmp_path)
    publish(folder, url)
    memory = type(fsspec.filesystem("memory"))
    whole = memory.ls

    def ls(self: fsspec.AbstractFileSystem, path: str, detail: bool = True) -> list[dict[str, object]]:
        return [one if knows_sizes else {**one, "size": None} for one in whole(self, path, detail=True)]

    monkeypatch.setattr(memory, "ls", ls)
    assert same(remote(url), EmbeddingCache(folder))
    fsspec.filesystem("memory").rm_file(f"{url}/vectors-00001.npy")
    with pytest.raises(CacheError, match=r"vectors-00001\.npy[\s\S]*no file") as error:
        remote(url)
    assert error.value.fix is None, "what repairs a folder repairs no URL"
    fsspec.filesystem("memory").pipe_file(f"{url}/manifest.json", b"{")
    with pytest.raises(CacheError, match="the manifest is damaged") as error:
        remote(url)
    assert error.value.fix is None
    fsspec.filesystem("memory").rm_file(f"{url}/manifest.json")
    with pytest.raises(CacheError, match="the manifest is missing") as error:
        remote(url)
    assert error.value.fix is None


def test_a_place_that_nothing_handles_is_named(cache_of, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no access to this kind of address"):
        publish(make_cache(cache_of, tmp_path), "nowhere://bucket/cache")
