"""A disk that is full, failing or read-only, and Ctrl-C: a clear error, a cache that opens, and work that goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cache.cache import CacheWriter, EmbeddingCache
from ragcun_cache.cache.verify import verify
from ragcun_cache.errors import CacheError

ROWS = 60


def partial_files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.partial-*")]


def mount(*arguments: str) -> None:
    """Mount, or skip the test where that is not allowed."""
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount something on, unmounted afterwards."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


@pytest.fixture
def whole(driver, quick_path: Path) -> dict[str, bytes]:
    """The files of a cache whose writer met no trouble."""
    driver.write(quick_path / "whole", ROWS)
    return driver.files_of(driver.layout_of(quick_path / "whole", ROWS).folder)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_an_error_at_any_step_is_told_and_survived(driver, whole, quick_path: Path, code: int) -> None:
    steps = driver.steps_of(lambda: driver.write(quick_path / "listed", ROWS))
    caches = quick_path / "failing"
    folder = driver.layout_of(caches, ROWS).folder
    for at, step in enumerate(steps):
        with (
            driver.announced(driver.stopper(at, driver.failing(code))),
            pytest.raises(CacheError) as error,
        ):
            driver.write(caches, ROWS)
        assert os.strerror(code) in str(error.value), step
        assert str(folder) in str(error.value), step
        if (folder / "manifest.json").exists():
            assert partial_files(folder) == [], step
            cache = EmbeddingCache(folder, allow_incomplete=True)
            assert len(cache.ids) == len(cache.array()) == cache.rows
        driver.write(caches, ROWS)
        assert driver.files_of(folder) == whole, step
        shutil.rmtree(caches)


def test_the_same_writer_goes_on_after_space_returns(driver, whole, quick_path: Path) -> None:
    """Whoever catches the error may free space and append the shard again."""
    steps = driver.steps_of(lambda: driver.write(quick_path / "listed", ROWS))
    caches = quick_path / "failing"
    layout = driver.layout_of(caches, ROWS)
    for at in range(steps.index("open vectors-00000.npy"), len(steps)):
        with (
            driver.announced(driver.stopper(at, driver.failing(errno.ENOSPC))),
            CacheWriter(layout, driver.manifest_of(ROWS)) as writer,
        ):
            failures = 0
            while not writer.manifest.complete:
                try:
                    if writer.manifest.rows < ROWS:
                        writer.append(driver.shard_at(len(writer.manifest.shards), ROWS))
                    else:
                        writer.finish(seconds=1.0)
                except CacheError:
                    failures += 1
        assert failures == 1
        assert driver.files_of(layout.folder) == whole, steps[at]
        shutil.rmtree(caches)


def test_a_full_file_system(driver, mounted: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted))
    rows = 24 * 40
    folder = driver.layout_of(mounted, rows).folder
    with pytest.raises(CacheError, match="No space left on device") as error:
        driver.write(mounted, rows)
    assert "all rows recorded so far are safe" in str(error.value)
    assert partial_files(folder) == []
    cache = EmbeddingCache(folder, allow_incomplete=True)
    assert 0 < cache.rows < rows and len(cache.array()) == cache.rows
    with pytest.raises(CacheError, match="not complete"):
        EmbeddingCache(folder)
    with pytest.raises(CacheError, match="No space left on device"):
        driver.write(mounted, rows)
    mount("-o", "remount,size=8m", str(mounted))
    assert driver.write(mounted, rows) == 40 - cache.rows // driver.SHARD_ROWS
    assert verify(folder) == []


def test_a_limit_on_the_size_of_a_file(driver, run_jobs, whole, quick_path: Path) -> None:
    """What a quota does, on every machine: the system refuses to make a file any longer."""
    job = {"do": "write", "total_rows": ROWS, "caches": quick_path / "limited"}
    folder = driver.layout_of(quick_path / "limited", ROWS).folder
    sizes = sorted({len(content) for content in whole.values()})
    for limit in (100, *(size - 1 for size in sizes)):
        (outcome,) = run_jobs({**job, "file_limit": limit})
        assert outcome["status"] == driver.REFUSED, outcome
        assert "File too large" in outcome["error"]
        if folder.exists():
            assert partial_files(folder) == []
    (outcome,) = run_jobs(job)
    assert outcome["status"] == 0, outcome
    assert driver.files_of(folder) == whole


def test_a_read_only_file_system(driver, mounted: Path, tmp_path: Path) -> None:
    driver.write(tmp_path / "caches", ROWS)
    with CacheWriter(driver.layout_of(tmp_path / "caches", 90), driver.manifest_of(90)) as writer:
        writer.append(driver.shard_at(0, 90))
    mount("--bind", str(tmp_path / "caches"), str(mounted))
    mount("-o", "remount,bind,ro", str(mounted))
    complete, unfinished = (driver.layout_of(mounted, rows).folder for rows in (ROWS, 90))
    assert len(EmbeddingCache(complete).array()) == ROWS
    assert EmbeddingCache(unfinished, allow_incomplete=True).rows == 24
    assert verify(complete) == []
    for rows in (90, 120):  # one that is there, and one that is not
        with pytest.raises(CacheError, match="Read-only file system"):
            driver.write(mounted, rows)
    subprocess.run(["umount", str(mounted)], check=True)
    assert driver.write(tmp_path / "caches", 90) == 3


def test_a_folder_without_permission(driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = driver.layout_of(tmp_path, ROWS).folder
    driver.write(tmp_path, ROWS)
    if os.geteuid() == 0:  # to whom modes mean nothing
        real = os.open

        def refuse(path, flags, *rest, **named) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, flags, *rest, **named)

        monkeypatch.setattr(os, "open", refuse)
    else:
        (folder / ".lock").chmod(0o444)
        folder.chmod(0o555)
    try:
        with pytest.raises(CacheError, match="Permission denied"):
            driver.write(tmp_path, ROWS)
        assert len(EmbeddingCache(folder).array()) == ROWS
    finally:
        folder.chmod(0o755)


def test_interrupted_at_every_step(driver, run_jobs, whole, quick_path: Path) -> None:
    job = {"do": "write", "total_rows": ROWS, "caches": quick_path / "interrupted"}
    folder = driver.layout_of(quick_path / "interrupted", ROWS).folder
    for at in range(len(driver.steps_of(lambda: driver.write(quick_path / "listed", ROWS)))):
        (outcome,) = run_jobs({**job, "at": at, "by": "interrupt"})
        assert outcome["status"] == driver.INTERRUPTED, (at, outcome)
        if folder.exists():
            assert partial_files(folder) == []
        (outcome,) = run_jobs(job)
        assert outcome["status"] == 0, outcome
        assert driver.files_of(folder) == whole
        shutil.rmtree(quick_path / "interrupted")
