"""A writer that is killed at any moment loses no committed row, and ends with the bytes of one that never was."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.cache.verify import verify

ROWS = 60  # three shards, the last one shorter
RANDOM_ROWS = 24 * 12


def committed_files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time and content of every file that a reader would use, after checking that it can."""
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    manifest = Manifest.parse(path.read_bytes(), path)
    assert EmbeddingCache(folder, allow_incomplete=True).array().shape == (manifest.rows, manifest.dim)
    names = [file.name for shard in manifest.shards for file in shard.files]
    return {
        name: (status.st_ino, status.st_mtime_ns, (folder / name).read_bytes())
        for name in names
        if (status := (folder / name).stat())
    }


def assert_resumes(driver, run_jobs, caches: Path, job: dict, reference: dict[str, bytes]) -> None:
    folder = driver.layout_of(caches, job["total_rows"]).folder
    before = committed_files(folder)
    (outcome,) = run_jobs({**job, "do": "write", "caches": caches})
    assert outcome["status"] == 0, outcome
    shards = -(-job["total_rows"] // driver.SHARD_ROWS)
    assert outcome["written"] == shards - len(before) // 2  # what was committed is not made again
    after = committed_files(folder)
    assert {name: after[name] for name in before} == before  # nor touched
    assert driver.files_of(folder) == reference  # and no partial file is left
    assert verify(folder) == []


@pytest.fixture
def reference(driver, quick_path: Path):
    """The files of a cache whose writer was never interrupted."""

    def files(total_rows: int, vector_format: str = "memmap") -> dict[str, bytes]:
        driver.write(quick_path / f"whole-{vector_format}", total_rows, vector_format)
        return driver.files_of(driver.layout_of(quick_path / f"whole-{vector_format}", total_rows).folder)

    return files


@pytest.mark.crash
@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_killed_at_every_step(driver, run_jobs, reference, quick_path: Path, vector_format: str) -> None:
    whole = reference(ROWS, vector_format)
    job = {"total_rows": ROWS, "format": vector_format}
    (listed,) = run_jobs({**job, "do": "steps", "caches": quick_path / "listed"})
    steps = listed["steps"]
    suffix = "npy" if vector_format == "memmap" else "parquet"
    files = ["manifest.json", "manifest.copy.json"]
    files += [name for index in range(3) for name in (f"vectors-{index:05d}.{suffix}", f"rows-{index:05d}.parquet")]
    for name in files:
        acts = {"open", "write", "write the second half of", "flush", "fsync", "rename"}
        assert acts <= {step.removesuffix(f" {name}") for step in steps if step.endswith(f" {name}")}
    for at, step in enumerate(steps):
        caches = quick_path / "killed"
        (outcome,) = run_jobs({**job, "do": "write", "caches": caches, "at": at})
        assert outcome["status"] == -signal.SIGKILL, (step, outcome)
        assert_resumes(driver, run_jobs, caches, job, whole)
        shutil.rmtree(caches)


@pytest.mark.crash
def test_killed_at_every_step_of_resuming(driver, run_jobs, reference, quick_path: Path) -> None:
    whole, job = reference(ROWS), {"total_rows": ROWS}
    killed = quick_path / "killed"
    (listed,) = run_jobs({**job, "do": "steps", "caches": quick_path / "listed"})
    at = listed["steps"].index("rename rows-00001.parquet")
    run_jobs({**job, "do": "write", "caches": killed, "at": at})
    left = {path.name for path in driver.layout_of(killed, ROWS).folder.iterdir()}
    assert any(".partial-" in name for name in left) and "vectors-00001.npy" in left

    def again() -> Path:
        return Path(shutil.copytree(killed, quick_path / "again"))

    (listed,) = run_jobs({**job, "do": "steps", "caches": again()})
    shutil.rmtree(quick_path / "again")
    assert sum(step.startswith("remove ") for step in listed["steps"]) == 2
    for at, step in enumerate(listed["steps"]):
        (outcome,) = run_jobs({**job, "do": "write", "caches": again(), "at": at})
        assert outcome["status"] == -signal.SIGKILL, (step, outcome)
        assert_resumes(driver, run_jobs, quick_path / "again", job, whole)
        shutil.rmtree(quick_path / "again")


@pytest.mark.crash
@pytest.mark.parametrize("vector_format", ["memmap", "parquet"])
def test_killed_at_random_moments(driver, run_jobs, reference, quick_path: Path, vector_format: str) -> None:
    whole = reference(RANDOM_ROWS, vector_format)
    job = {"total_rows": RANDOM_ROWS, "format": vector_format}
    started = time.monotonic()
    run_jobs({**job, "do": "write", "caches": quick_path / "timed"})
    seconds = time.monotonic() - started
    rng = random.Random(0)
    kills, committed = 0, set()
    for attempt in range(400):
        caches = quick_path / f"killed-{attempt}"
        kill_after = rng.uniform(0, seconds)
        (outcome,) = run_jobs({**job, "do": "write", "caches": caches, "kill_after": kill_after})
        if outcome["status"] == -signal.SIGKILL:
            kills += 1
            committed.add(len(committed_files(driver.layout_of(caches, RANDOM_ROWS).folder)))
            assert_resumes(driver, run_jobs, caches, job, whole)
        shutil.rmtree(caches, ignore_errors=True)
        if kills == 60:
            break
    assert kills == 60
    assert len(committed) >= 5, "the kills did not fall at different stages"


@pytest.mark.crash
def test_killed_over_and_over(driver, run_jobs, reference, quick_path: Path) -> None:
    whole, job = reference(ROWS), {"total_rows": ROWS}
    folder = driver.layout_of(quick_path / "killed", ROWS).folder
    rows = -1
    for at in range(1, 200, 3):
        before = committed_files(folder)
        (outcome,) = run_jobs({**job, "do": "write", "caches": quick_path / "killed", "at": at})
        after = committed_files(folder)
        assert {name: after[name] for name in before} == before
        assert len(after) >= rows
        rows = len(after)
        if outcome["status"] == 0:
            break
    assert driver.files_of(folder) == whole


@pytest.mark.parametrize("names_are_kept", [False, True], ids=["only-what-was-synced", "every-rename"])
def test_power_cut_at_every_step(
    driver, reference, quick_path: Path, monkeypatch: pytest.MonkeyPatch, names_are_kept: bool
) -> None:
    whole = reference(ROWS)
    steps = driver.steps_of(lambda: driver.write(quick_path / "listed", ROWS))
    folder = driver.layout_of(quick_path / "cut", ROWS).folder
    returned: list[int] = []
    append = driver.CacheWriter.append

    def appended(self, shard) -> None:
        append(self, shard)
        returned.append(self.manifest.rows)

    monkeypatch.setattr(driver.CacheWriter, "append", appended)
    for at in range(len(steps)):
        returned.clear()
        disk = driver.PowerCutDisk(folder, at, names_are_kept)
        with pytest.raises(driver.PowerCut), driver.announced(disk.step):
            driver.write(quick_path / "cut", ROWS)
        disk.restore()
        if "manifest.json" in disk.files:
            cache = EmbeddingCache(folder, allow_incomplete=True)
            assert cache.rows >= max(returned, default=0)
            assert len(cache.ids) == cache.rows == len(cache.array())
        else:
            assert not returned
        driver.write(quick_path / "cut", ROWS)
        assert driver.files_of(folder) == whole, steps[at]
        assert verify(folder) == []
        shutil.rmtree(quick_path / "cut")


def test_new_folders_are_synced_before_anything_counts(driver, quick_path: Path) -> None:
    steps = driver.steps_of(lambda: driver.write(quick_path / "home" / "caches", ROWS))
    first = steps.index("rename manifest.json")
    for name in (quick_path.name, "home", "caches", "any"):
        assert f"fsync the folder {name}" in steps[:first]


@pytest.mark.parametrize("when", ["missing", "damaged", "older than its copy"])
def test_a_broken_manifest_never_sweeps_shards_away(driver, quick_path: Path, when: str) -> None:
    folder = driver.layout_of(quick_path, ROWS).folder
    driver.write(quick_path, ROWS)
    path = folder / "manifest.json"
    whole = Manifest.parse(path.read_bytes(), path)
    if when == "missing":
        path.unlink()
    elif when == "damaged":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        older = whole.model_copy(update={"shards": whole.shards[:1], "complete": False})
        path.write_bytes(older.to_bytes())
    before = driver.files_of(folder)
    with pytest.raises(driver.CacheError, match="verify --repair"):
        driver.write(quick_path, ROWS)
    assert driver.files_of(folder) == before


def test_a_copy_that_a_crash_left_behind_is_brought_along(driver, reference, quick_path: Path) -> None:
    whole = reference(ROWS)
    folder = driver.layout_of(quick_path, ROWS).folder
    driver.write(quick_path, ROWS)
    path = folder / "manifest.copy.json"
    complete = Manifest.parse(path.read_bytes(), path)
    path.write_bytes(complete.model_copy(update={"complete": False}).to_bytes())
    driver.write(quick_path, ROWS)
    assert driver.files_of(folder) == whole
