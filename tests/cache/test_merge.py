from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.cache import CacheLayout, CacheWriter, EmbeddingCache, Manifest, list_caches, repair, verify
from ragcun_cache.cache.convert import convert
from ragcun_cache.cache.merge import find_splits, merge
from ragcun_cache.cache.pair import made_at
from ragcun_cache.cache.part import Part
from ragcun_cache.errors import CacheError, ConfigError

ROWS = 24 * 7 + 5


def write_part(driver: ModuleType, caches: Path, part: Part, shards: int | None = None, **changes: object) -> Path:
    """Write a part of the driver's cache, or only its first ``shards`` shards, and return its folder."""
    asked = driver.manifest_of(ROWS).model_copy(update=changes)
    layout = part.layout(driver.layout_of(caches, ROWS))
    with CacheWriter(layout, asked, part) as writer:
        for index in writer.shards[len(writer.manifest.shards) : shards]:
            writer.append(driver.shard_at(index, ROWS))
        if shards is None:
            writer.finish(seconds=1.0)
    return layout.folder


def whole_of(driver: ModuleType, tmp_path: Path) -> tuple[dict[str, bytes], Manifest]:
    """Return the shard files and the manifest of the same cache, written in one go."""
    driver.write(tmp_path / "whole", ROWS)
    folder = driver.layout_of(tmp_path / "whole", ROWS).folder
    return shard_files(driver, folder), EmbeddingCache(folder).manifest


def shard_files(driver: ModuleType, folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in driver.files_of(folder).items() if "manifest" not in name}


@given(st.integers(0, 10_000), st.integers(1, 700), st.integers(1, 40))
def test_the_parts_have_every_shard_once_and_in_order(rows: int, shard_rows: int, of: int) -> None:
    ranges = [Part(number, of).shards(rows, shard_rows) for number in range(1, of + 1)]
    assert [index for one in ranges for index in one] == list(range(-(-rows // shard_rows)))
    sizes = [len(one) for one in ranges]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", "", "１/2"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2/4"):
        Part.parse(text)


@pytest.mark.parametrize("of", [1, 2, 3, 8, 11])
def test_merged_parts_are_the_whole(driver: ModuleType, tmp_path: Path, of: int) -> None:
    expected, manifest = whole_of(driver, tmp_path)
    for number in reversed(range(1, of + 1)):
        write_part(driver, tmp_path, Part(number, of))
    assert list_caches(tmp_path) == [], "a part was taken for a cache"
    (split,) = find_splits(tmp_path, "any")
    merged = merge(split)
    assert shard_files(driver, split.whole.folder) == expected
    assert merged.shards == manifest.shards
    assert merged.complete
    assert verify(split.whole.folder) == []
    assert sorted(merged.provenance["parts"]) == sorted(f"{number}/{of}" for number in range(1, of + 1))
    assert not (split.whole.folder.parent / "parts").exists()


def test_a_merged_cache_is_as_old_as_its_oldest_part(driver: ModuleType, tmp_path: Path) -> None:
    for number, day in ((1, "2026-03-02"), (2, "2026-03-01")):
        write_part(driver, tmp_path, Part(number, 2), provenance={"created": f"{day}T00:00:00+00:00"})
    (split,) = find_splits(tmp_path, "any")
    assert made_at(split.whole, merge(split)) == "2026-03-01T00:00:00+00:00"


def test_parts_that_are_kept_can_be_merged_again(driver: ModuleType, tmp_path: Path) -> None:
    folders = [write_part(driver, tmp_path, Part(number, 2)) for number in (1, 2)]
    (split,) = find_splits(tmp_path, "any")
    assert merge(split, keep=True) == merge(split, keep=True)
    assert all(folder.is_dir() for folder in folders)
    merge(split)
    assert not any(folder.exists() for folder in folders)
    assert verify(split.whole.folder) == []


def test_a_part_goes_on_where_it_stopped_and_is_never_complete(driver: ModuleType, tmp_path: Path) -> None:
    folder = write_part(driver, tmp_path, Part(2, 2), shards=2)
    with pytest.raises(CacheError, match="not complete"):
        EmbeddingCache(folder)
    assert write_part(driver, tmp_path, Part(2, 2)) == folder
    with pytest.raises(CacheError, match="not complete"):
        EmbeddingCache(folder)
    assert [one.metadata.name for one in EmbeddingCache(folder, allow_incomplete=True).manifest.shards] == [
        f"rows-{index:05d}.parquet" for index in range(4, 8)
    ]
    with (
        pytest.raises(CacheError, match="all are there"),
        CacheWriter(CacheLayout(folder), driver.manifest_of(ROWS), Part(2, 2)) as writer,
    ):
        writer.append(driver.shard_at(7, ROWS))


def test_a_part_is_not_converted(driver: ModuleType, tmp_path: Path) -> None:
    folder = write_part(driver, tmp_path, Part(2, 2))
    before = driver.files_of(folder)
    with pytest.raises(CacheError, match="part 2/2 of a cache"):
        convert(folder, "parquet")
    assert driver.files_of(folder) == before


@pytest.mark.usefixtures("like_nfs")
def test_parts_on_nfs_go_too(driver: ModuleType, tmp_path: Path) -> None:
    for number in (1, 2):
        write_part(driver, tmp_path, Part(number, 2))
    (split,) = find_splits(tmp_path, "any")
    assert merge(split).complete
    assert [path.name for path in split.whole.folder.parent.iterdir()] == [split.whole.folder.name]


def test_a_damaged_part_is_repaired(driver: ModuleType, tmp_path: Path) -> None:
    expected, manifest = whole_of(driver, tmp_path)
    ids = EmbeddingCache(driver.layout_of(tmp_path / "whole", ROWS).folder).ids
    folders = [write_part(driver, tmp_path, Part(number, 2)) for number in (1, 2)]
    for folder in folders:
        assert verify(folder, expected_ids=ids) == []
        assert verify(folder, expected_ids=[*ids[1:], ids[0]])
    _flip_last_bit(folders[1] / "vectors-00005.npy")
    (folders[1] / "manifest.json").unlink()
    damages = verify(folders[1])
    assert [(one.file, one.shard) for one in damages] == [("manifest.json", None), ("vectors-00005.npy", 1)]
    done = repair(folders[1], damages, lambda number: driver.shard_at(number, ROWS))
    assert done == [
        "manifest.json: restored from the other copy",
        "shard 5: encoded again, byte for byte what it was",
    ]
    (split,) = find_splits(tmp_path, "any")
    assert merge(split).shards == manifest.shards
    assert shard_files(driver, split.whole.folder) == expected


def _flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _missing(driver: ModuleType, caches: Path) -> None:
    shutil.rmtree(write_part(driver, caches, Part(2, 3)))


def _unfinished(driver: ModuleType, caches: Path) -> None:
    shutil.rmtree(write_part(driver, caches, Part(2, 3)))
    write_part(driver, caches, Part(2, 3), shards=1)


def _not_compared(driver: ModuleType, caches: Path) -> None:
    """As an encode leaves it that finds, when every shard is there, that the collection has changed meanwhile."""
    shutil.rmtree(write_part(driver, caches, Part(2, 3)))
    write_part(driver, caches, Part(2, 3), shards=99)


def _damaged(driver: ModuleType, caches: Path) -> None:
    _flip_last_bit(write_part(driver, caches, Part(2, 3)) / "vectors-00003.npy")


def _other_spec(driver: ModuleType, caches: Path) -> None:
    shutil.rmtree(write_part(driver, caches, Part(2, 3)))
    write_part(driver, caches, Part(2, 3), spec={**driver.manifest_of(ROWS).spec, "precision": "bf16"})


def _misnamed(driver: ModuleType, caches: Path) -> None:
    second = write_part(driver, caches, Part(2, 3))
    shutil.rmtree(second)
    shutil.copytree(write_part(driver, caches, Part(1, 3)), second)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_missing, "no part 2/3"),
        (_unfinished, r"part 2/3 is not finished[\s\S]*encode --dataset a/any --model \S+ .*--part 2/3"),
        (_not_compared, r"part 2/3 is not finished[\s\S]*not yet compared with the collection"),
        (_damaged, "a shard is damaged"),
        (_other_spec, "precision: 'fp32' → 'bf16'"),
        (_misnamed, "does not hold the shards that its name says"),
    ],
)
def test_what_is_no_whole_set_of_parts_is_not_merged(driver: ModuleType, tmp_path: Path, spoil, said: str) -> None:
    for number in (1, 2, 3):
        write_part(driver, tmp_path, Part(number, 3))
    spoil(driver, tmp_path)
    (split,) = find_splits(tmp_path, "any")
    with pytest.raises(CacheError, match=said):
        merge(split, dataset="a/any")
    assert not any(manifest.complete for _, manifest in list_caches(tmp_path))
    assert split.parts[1].manifest.exists()


def test_parts_stay_where_the_whole_lacks_files_that_its_manifest_names(driver: ModuleType, tmp_path: Path) -> None:
    for number in (1, 2):
        write_part(driver, tmp_path, Part(number, 2))
    (split,) = find_splits(tmp_path, "any")
    merge(split, keep=True)
    shutil.copy2(split.whole.folder / "vectors-00006.npy", tmp_path)
    (split.whole.folder / "vectors-00006.npy").unlink()
    with pytest.raises(CacheError, match="a shard is damaged"):
        merge(split)
    assert all(part.manifest.exists() for part in split.parts.values())
    shutil.copy2(tmp_path / "vectors-00006.npy", split.whole.folder)
    assert merge(split).complete
    assert not any(part.folder.exists() for part in split.parts.values())


def test_parts_of_different_shard_sizes_are_not_merged(driver: ModuleType, tmp_path: Path) -> None:
    write_part(driver, tmp_path, Part(1, 2))
    with CacheWriter(
        Part(2, 2).layout(driver.layout_of(tmp_path, ROWS)),
        driver.manifest_of(ROWS).model_copy(update={"shard_rows": 12}),
        Part(2, 2),
    ):
        pass
    (split,) = find_splits(tmp_path, "any")
    with pytest.raises(CacheError, match="shard_rows: 24 → 12"):
        merge(split)


def test_a_cache_that_was_begun_with_other_shards_is_left_alone(driver: ModuleType, tmp_path: Path) -> None:
    for number in (1, 2):
        write_part(driver, tmp_path, Part(number, 2))
    other = driver.shard_at(1, ROWS)
    with CacheWriter(driver.layout_of(tmp_path, ROWS), driver.manifest_of(ROWS)) as writer:
        writer.append(other)
    (split,) = find_splits(tmp_path, "any")
    with pytest.raises(CacheError, match="there already, with other shards"):
        merge(split)
    assert EmbeddingCache(split.whole.folder, allow_incomplete=True).rows == 24


def test_where_files_cannot_be_linked_they_are_copied(
    driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = whole_of(driver, tmp_path)
    for number in (1, 2):
        write_part(driver, tmp_path, Part(number, 2))

    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    (split,) = find_splits(tmp_path, "any")
    merge(split)
    assert shard_files(driver, split.whole.folder) == expected


def test_a_merge_that_fails_at_any_step_goes_on_when_it_is_run_again(driver: ModuleType, quick_path: Path) -> None:
    expected, _ = whole_of(driver, quick_path)
    for number in (1, 2):
        write_part(driver, quick_path / "parts", Part(number, 2))

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    steps, stopped = 0, True
    while stopped:
        caches = quick_path / f"attempt-{steps}"
        shutil.copytree(quick_path / "parts", caches)
        stopped = False
        try:
            with driver.announced(driver.stopper(steps, stop)):
                merge(find_splits(caches, "any")[0])
        except Stop:
            stopped = True
        if splits := find_splits(caches, "any"):
            merge(splits[0])
        folder = driver.layout_of(caches, ROWS).folder
        assert shard_files(driver, folder) == expected, steps
        assert verify(folder) == [], steps
        shutil.rmtree(caches)
        steps += 1
    assert steps > 100
