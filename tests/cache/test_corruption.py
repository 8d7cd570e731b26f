"""Whatever befalls a file of a cache is found, and put back to the byte, with nothing else touched."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import CacheLayout, EmbeddingCache
from ragcun_cache.cache.convert import convert
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.cache.pair import made_at
from ragcun_cache.cache.verify import repair, verify
from ragcun_cache.errors import CacheError

ROWS = 24 * 3 + 7
MANIFESTS = ("manifest.json", "manifest.copy.json")
FORMATS = pytest.mark.parametrize("vector_format", ["memmap", "parquet"])


class Patient:
    """A sound cache that is harmed again and again."""

    def __init__(self, driver, caches: Path, vector_format: str) -> None:
        self._driver = driver
        driver.write(caches, ROWS, vector_format)
        self.folder: Path = driver.layout_of(caches, ROWS).folder
        self.sound: dict[str, bytes] = driver.files_of(self.folder)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Inode and time of every file."""
        return {name: ((s := (self.folder / name).stat()).st_ino, s.st_mtime_ns) for name in self.sound}

    def harm(self, changes: dict[str, bytes | None], *, shards: set[int]) -> None:
        """Change or remove files; hold ``verify`` to naming them, and ``repair`` to restoring them and only them."""
        for name, content in changes.items():
            (self.folder / name).unlink()
            if content is not None:
                (self.folder / name).write_bytes(content)
        before = self.stamps() if None not in changes.values() else {}
        untouched = {
            name: ((s := (self.folder / name).stat()).st_ino, s.st_mtime_ns)
            for name in self.sound
            if name not in changes
        }
        damages = verify(self.folder)
        assert {damage.file for damage in damages} >= changes.keys(), damages
        assert {damage.shard for damage in damages} - {None} == shards, [str(damage) for damage in damages]
        encoded: list[int] = []

        def encode(index: int):
            encoded.append(index)
            return self._driver.shard_at(index, ROWS)

        repair(self.folder, damages, encode)
        assert set(encoded) == shards and len(encoded) == len(shards)
        assert self._driver.files_of(self.folder) == self.sound
        after = self.stamps()
        assert {name: after[name] for name in untouched} == untouched
        assert all(after[name] != before[name] for name in changes if before)
        assert verify(self.folder) == []

    def shard_of(self, name: str) -> set[int]:
        """The number of the shard that a file belongs to."""
        return set() if name in MANIFESTS else {int(name.split("-")[1].split(".")[0])}


@pytest.fixture
def patient(driver, quick_path: Path) -> Callable[[str], Patient]:
    return lambda vector_format: Patient(driver, quick_path, vector_format)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@FORMATS
def test_every_flipped_bit_is_found_and_put_back(patient, vector_format: str) -> None:
    cache = patient(vector_format)
    rng = random.Random(0)
    for name, content in cache.sound.items():
        for _ in range(24):  # in ten files
            cache.harm({name: flipped(content, rng.randrange(8 * len(content)))}, shards=cache.shard_of(name))


@FORMATS
def test_every_truncation_and_extension_is_found_and_put_back(patient, vector_format: str) -> None:
    cache = patient(vector_format)
    for name, content in cache.sound.items():
        for length in (0, 1, len(content) // 2, len(content) - 1):
            cache.harm({name: content[:length]}, shards=cache.shard_of(name))
        cache.harm({name: content + b"\0"}, shards=cache.shard_of(name))
        cache.harm({name: bytes(len(content))}, shards=cache.shard_of(name))


@FORMATS
def test_every_missing_file_is_found_and_put_back(patient, vector_format: str) -> None:
    cache = patient(vector_format)
    for name in cache.sound:
        cache.harm({name: None}, shards=cache.shard_of(name))


@FORMATS
@pytest.mark.parametrize("kinds", [("vectors",), ("rows",), ("vectors", "rows")], ids="+".join)
def test_swapped_shards_are_found_and_put_back(patient, vector_format: str, kinds: tuple[str, ...]) -> None:
    cache = patient(vector_format)
    changes = {}
    for kind in kinds:
        first, second = sorted(name for name in cache.sound if name.startswith(kind))[:2]
        changes |= {first: cache.sound[second], second: cache.sound[first]}
    cache.harm(changes, shards={0, 1})


@FORMATS
def test_many_harms_at_once_are_found_and_put_back(patient, vector_format: str) -> None:
    cache = patient(vector_format)
    vectors = sorted(name for name in cache.sound if name.startswith("vectors"))
    changes = {
        "manifest.json": b"",
        vectors[0]: None,
        vectors[2]: flipped(cache.sound[vectors[2]], 5000),
        "rows-00003.parquet": b"",
    }
    cache.harm(changes, shards={0, 2, 3})


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("shards", [0, 1, 3, 4])
def test_a_stale_manifest_is_found_and_put_back(patient, name: str, shards: int) -> None:
    cache = patient("memmap")
    now = Manifest.parse(cache.sound[name], name)
    stale = now.model_copy(update={"shards": now.shards[:shards], "complete": False, "provenance": {}})
    cache.harm({name: stale.to_bytes()}, shards=set())


def test_two_stale_manifests_are_found_and_gone_on_from(driver, patient, quick_path: Path) -> None:
    cache = patient("memmap")
    now = Manifest.parse(cache.sound["manifest.json"], "manifest.json")
    stale = now.model_copy(update={"shards": now.shards[:2], "complete": False, "provenance": {}})
    for name in MANIFESTS:
        (cache.folder / name).write_bytes(stale.to_bytes())
    assert any("is not complete" in damage.problem for damage in verify(cache.folder))
    assert driver.write(quick_path, ROWS) == 2
    assert driver.files_of(cache.folder) == cache.sound


def test_the_manifest_of_another_cache_is_found(driver, patient, quick_path: Path) -> None:
    cache = patient("memmap")
    driver.write(quick_path, ROWS + 1)
    other = driver.layout_of(quick_path, ROWS + 1).folder
    for name in MANIFESTS:
        (cache.folder / name).write_bytes((other / name).read_bytes())
    assert any(damage.shard is None for damage in verify(cache.folder))


def test_two_damaged_manifests_are_more_than_repair_can_do(patient) -> None:
    cache = patient("memmap")
    for name in MANIFESTS:
        (cache.folder / name).write_bytes(b"{}")
    damages = verify(cache.folder)
    assert {damage.file for damage in damages} == set(MANIFESTS)
    with pytest.raises(CacheError, match="both copies"):
        repair(cache.folder, damages, lambda index: pytest.fail("nothing says what to encode"))
    assert {name: (cache.folder / name).read_bytes() for name in cache.sound if name not in MANIFESTS} == {
        name: content for name, content in cache.sound.items() if name not in MANIFESTS
    }


def test_ids_that_are_not_those_of_the_collection_are_found(patient) -> None:
    cache = patient("memmap")
    ids = EmbeddingCache(cache.folder).ids
    assert verify(cache.folder, expected_ids=ids) == []
    assert verify(cache.folder, expected_ids=[*ids[1:], ids[0]])
    assert verify(cache.folder, expected_ids=ids[:-1])
    assert verify(cache.folder, expected_ids=[*ids, "one more"])


@FORMATS
def test_a_reader_of_damaged_bytes_raises_nothing_but_cache_errors(patient, vector_format: str) -> None:
    """Opening does not read every byte, so wrong values may get through until ``verify``; wrong shapes may not."""
    cache = patient(vector_format)
    name = sorted(name for name in cache.sound if name.startswith("vectors"))[0]
    content = cache.sound[name]
    header = range(8 * 128) if vector_format == "memmap" else range(8 * (len(content) - 700), 8 * len(content), 3)
    for bit in header:
        (cache.folder / name).write_bytes(flipped(content, bit))
        try:
            vectors_nd = EmbeddingCache(cache.folder).array()
        except CacheError:
            continue
        assert vectors_nd.shape == (ROWS, 16)


def test_a_reader_of_damaged_rows_raises_nothing_but_cache_errors(patient) -> None:
    cache = patient("memmap")
    content = cache.sound["rows-00000.parquet"]
    rng = random.Random(0)
    for _ in range(600):
        (cache.folder / "rows-00000.parquet").write_bytes(flipped(content, rng.randrange(8 * len(content))))
        opened = EmbeddingCache(cache.folder)
        try:
            ids, norms = opened.ids, opened.norms
        except CacheError:
            continue
        assert len(ids) == len(norms) == ROWS
        assert norms.dtype == np.float32


def test_what_is_mended_or_converted_is_as_old_as_it_was(driver, patient) -> None:
    cache = patient("memmap")
    layout = CacheLayout(cache.folder)

    def age() -> str:
        return made_at(layout, Manifest.parse(layout.manifest.read_bytes(), layout.manifest))

    for name in MANIFESTS:
        os.utime(cache.folder / name, (0, 0))
    layout.manifest.unlink()
    repair(cache.folder, verify(cache.folder), lambda index: driver.shard_at(index, ROWS))
    assert age().startswith("1970-01-01")
    (cache.folder / "vectors-00001.npy").unlink()
    # As on another machine: other bytes, so the manifest is written anew.
    repair(cache.folder, verify(cache.folder), lambda index: driver.shard_at(index + 1, ROWS))
    assert age().startswith("1970-01-01")
    convert(cache.folder, "parquet")
    assert age().startswith("1970-01-01")


def test_an_old_cache_that_is_converted_stays_old(patient) -> None:
    cache = patient("memmap")
    layout = CacheLayout(cache.folder)
    for name in MANIFESTS:
        os.utime(cache.folder / name, (0, 0))
    convert(cache.folder, "parquet")
    assert made_at(layout, Manifest.parse(layout.manifest.read_bytes(), layout.manifest)).startswith("1970-01-01")
