"""One writer at a time, whoever comes; any number of readers, whenever they come."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ragcun_cache.cache import CacheWriter, EmbeddingCache
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.verify import verify
from ragcun_cache.errors import CacheError

ROWS = 24 * 20


def test_of_two_writers_at_once_one_is_refused(driver, run_jobs, quick_path: Path) -> None:
    job = {"do": "write", "total_rows": ROWS, "pause": 0.02, "caches": quick_path}
    outcomes = run_jobs(job, job)
    assert sorted(outcome["status"] for outcome in outcomes) == [0, driver.REFUSED], outcomes
    (refused,) = [outcome for outcome in outcomes if outcome["status"] == driver.REFUSED]
    assert "another process is writing this cache" in refused["error"]
    assert "fix:" in refused["error"]
    driver.write(quick_path / "alone", ROWS)
    files = driver.files_of(driver.layout_of(quick_path, ROWS).folder)
    assert files == driver.files_of(driver.layout_of(quick_path / "alone", ROWS).folder)


def test_a_second_writer_in_the_same_process_is_refused(driver, tmp_path: Path) -> None:
    layout, asked = driver.layout_of(tmp_path, 30), driver.manifest_of(30)
    with (
        CacheWriter(layout, asked),
        pytest.raises(CacheError, match="another process is writing"),
        CacheWriter(layout, asked),
    ):
        pass
    driver.write(tmp_path, 30)


def test_the_lock_of_a_killed_writer_is_free_at_once(driver, run_jobs, quick_path: Path) -> None:
    job = {"do": "write", "total_rows": ROWS, "caches": quick_path}
    (killed,) = run_jobs({**job, "pause": 0.02, "kill_after": 0.1})
    assert killed["status"] < 0
    (outcome,) = run_jobs(job)
    assert outcome["status"] == 0, outcome


@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_fifty_readers_during_a_write(driver, run_jobs, quick_path: Path, vector_format: str) -> None:
    shared = {"total_rows": ROWS, "format": vector_format, "caches": quick_path}
    with CacheWriter(driver.layout_of(quick_path, ROWS), driver.manifest_of(ROWS, vector_format)):
        pass  # so that the readers find a cache, of no rows yet
    readers = [{**shared, "do": "read", "threads": 5} for _ in range(10)]
    *read, written = run_jobs(*readers, {**shared, "do": "write", "pause": 0.05})
    assert [outcome["status"] for outcome in (*read, written)] == [0] * 11, (read, written)
    assert written["written"] == ROWS // driver.SHARD_ROWS
    assert sum(outcome["opened"] for outcome in read) > 200  # fifty of them opened it again and again
    assert verify(driver.layout_of(quick_path, ROWS).folder) == []


def test_files_that_are_renamed_while_they_are_listed_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"12345")
    partial, final = tmp_path / "rows.partial-1", tmp_path / "rows"
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            partial.write_bytes(b"1")
            partial.replace(final)

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        for _ in range(2000):
            assert LocalPlace(tmp_path).sizes()["manifest.json"] == 5
    finally:
        done.set()
        thread.join()


def test_a_reader_keeps_what_it_opened(driver, tmp_path: Path) -> None:
    layout = driver.layout_of(tmp_path, 60)
    with CacheWriter(layout, driver.manifest_of(60)) as writer:
        writer.append(driver.shard_at(0, 60))
        early = EmbeddingCache(layout.folder, allow_incomplete=True)
        writer.append(driver.shard_at(1, 60))
        assert (early.rows, len(early.ids), len(early.array())) == (24, 24, 24)
        assert EmbeddingCache(layout.folder, allow_incomplete=True).rows == 48
