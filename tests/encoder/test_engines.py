from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cache.cache import CacheWriter, EmbeddingCache, Shard, verify
from ragcun_cache.collections import Collection, find_collection
from ragcun_cache.encoder import EncodeConfig, EngineConfig, encode_collection
from ragcun_cache.encoder.engines.ray import _model
from ragcun_cache.encoder.engines.workers import Place, WorkersEngine, _use_cores, places
from ragcun_cache.errors import CollectionError, ConfigError, EncoderError
from ragcun_cache.home import Home

SHARD_ROWS = 32
TWO_WORKERS = EngineConfig(workers=2, threads=1)
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in Linux's /proc")


@pytest.fixture
def config(tiny_encoder: Path) -> EncodeConfig:
    return EncodeConfig(
        model=str(tiny_encoder), backend="torch", precision="fp32", device="cpu", shard_rows=SHARD_ROWS, batch_tokens=64
    )


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch rounds differently with another number of threads; a worker has one where there are two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def collection(home: Home, tiny_collection) -> Collection:
    tiny_collection(n_passages=330)
    return find_collection("tiny", home)


def shard_files(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.caches)): path.read_bytes()
        for path in sorted(home.caches.rglob("*"))
        if path.name.startswith(("vectors-", "rows-"))
    }


@pytest.fixture
def expected(tmp_path: Path, collection: Collection, config: EncodeConfig) -> dict[str, bytes]:
    """The files of one process."""
    whole = Home(tmp_path / "whole")
    encode_collection(collection, whole, config)
    return shard_files(whole)


# Who starts tests in the background of a shell has SIGINT ignored, and all children with them.
WITH_SIGINT = """
import signal
from ragcun_cache.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def command(model: Path, *arguments: str) -> list[str]:
    fixed = ["--dataset", "tiny", "--model", str(model), "--backend", "torch", "--precision", "fp32", "--device", "cpu"]
    sizes = ["--shard-rows", str(SHARD_ROWS), "--batch-tokens", "64"]
    return [sys.executable, "-c", WITH_SIGINT, "encode", *fixed, *sizes, *arguments]


@pytest.fixture
def start(home: Home) -> Iterator[Callable[[list[str]], subprocess.Popen[str]]]:
    """A function that starts a command in a session of its own, of which nothing is left after the test."""
    environment = {**os.environ, "RAGCUN_HOME": str(home.root), "HF_HUB_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started: list[subprocess.Popen[str]] = []

    def run(arguments: list[str]) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(arguments, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 280
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def passages(home: Home) -> int:
    return len(list(home.caches.glob("tiny/passage-*/vectors-*.npy")))


def test_each_worker_has_a_device_or_cores_of_its_own() -> None:
    assert places("cpu", 0, 2, None, range(5)) == [Place("cpu", frozenset({0, 1})), Place("cpu", frozenset({2, 3}))]
    assert places("cpu", 0, 3, None, [4, 7]) == [Place("cpu", frozenset({core})) for core in (4, 7, 4)]
    assert places("cpu", 0, 2, 2, [0, 1]) == [Place("cpu", frozenset({0, 1}))] * 2
    assert places("cuda", 2, 3, None, [0]) == [Place("cuda:0"), Place("cuda:1"), Place("cuda:0")]
    assert places("cuda:1", 2, 2, None, [0]) == [Place("cuda:1"), Place("cuda:1")]


def test_where_no_core_can_be_kept_to_the_model_is_told_their_number(
    config: EncodeConfig, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert _use_cores(frozenset({0, 1, 2})) == 3
    model = _model(config.model_dump_json(), str(home.root), 3)  # As a task on Ray has it.
    _model.cache_clear()
    assert model.threads == 3


@pytest.mark.crash
def test_two_workers_one_of_them_killed_give_the_bytes_of_one_process(
    home: Home,
    collection: Collection,
    config: EncodeConfig,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append, killed = CacheWriter.append, []

    def kill_one(self: CacheWriter, shard: Shard) -> None:
        append(self, shard)
        if not killed and shard.ids[0] == f"p{2 * SHARD_ROWS}":
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    monkeypatch.setattr(CacheWriter, "append", kill_one)
    reports = encode_collection(collection, home, config, TWO_WORKERS)
    assert killed
    assert shard_files(home) == expected
    assert [report.encoded for report in reports] == [70, 330]
    assert reports[1].manifest.provenance["attempts"][0]["workers"] == 2
    assert reports[1].phases.tokens == reports[1].manifest.tokens
    assert all(verify(report.folder) == [] for report in reports)
    assert multiprocessing.active_children() == []


@pytest.mark.crash
def test_a_shard_that_kills_its_worker_three_times_is_named_and_the_rest_is_kept(
    home: Home,
    collection: Collection,
    config: EncodeConfig,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receive, deaths = WorkersEngine._receive, dict[int, int]()

    def kill_who_has_shard_3(self: WorkersEngine, run) -> None:
        for worker in self._running:
            if any(block.ids[0] == f"p{3 * SHARD_ROWS}" for block in worker.blocks):
                os.kill(worker.process.pid, signal.SIGKILL)
                deaths[worker.process.pid] = len(worker.blocks)
        receive(self, run)

    with monkeypatch.context() as patch, pytest.raises(EncoderError) as caught:
        patch.setattr(WorkersEngine, "_receive", kill_who_has_shard_3)
        encode_collection(collection, home, config, EngineConfig(workers=1, threads=1))
    assert "shard 3 killed its worker 3 times" in str(caught.value)
    assert "'p96' to 'p127'" in str(caught.value)
    assert "SIGKILL" in str(caught.value)
    assert list(deaths.values())[1:] == [1, 1], "after the first death it must be alone"
    assert passages(home) == 3, "what came before is kept"
    assert multiprocessing.active_children() == []
    encode_collection(collection, home, config)
    assert shard_files(home) == expected


@pytest.mark.crash
def test_an_error_in_a_worker_is_that_of_one_process(
    home: Home, collection: Collection, config: EncodeConfig, tmp_path: Path
) -> None:
    import shutil

    broken = Path(shutil.copytree(config.model, tmp_path / "broken"))
    settings = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**settings, "hidden_size": 48}))
    said = []
    for engine in (TWO_WORKERS, EngineConfig()):
        with pytest.raises(EncoderError, match="cannot be loaded") as caught:
            encode_collection(collection, home, config.model_copy(update={"model": str(broken)}), engine)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert multiprocessing.active_children() == []


@pytest.mark.crash
@LINUX
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(
    home: Home, start, tiny_collection, tiny_encoder: Path, workers: str
) -> None:
    tiny_collection(n_passages=3_000)
    process = start(command(tiny_encoder, "--workers", workers))
    wait_for(lambda: passages(home) > 3, process)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to all of them.
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; what was finished is kept" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while _members(process.pid):
        assert time.monotonic() < deadline, _members(process.pid)
        time.sleep(0.05)
    safe = passages(home)
    assert 3 < safe < 3_000 // SHARD_ROWS
    done = start([*command(tiny_encoder, "--workers", workers), "--json"])
    out, said = done.communicate(timeout=280)
    assert done.returncode == 0, said
    record = json.loads(out)[1]
    assert record["encoded"] <= 3_000 - safe * SHARD_ROWS
    assert verify(Path(record["folder"])) == []


@pytest.mark.crash
def test_two_processes_with_a_part_each_then_merged_are_the_whole(
    home: Home, start, collection: Collection, expected: dict[str, bytes], tiny_encoder: Path
) -> None:
    both = [start(command(tiny_encoder, "--part", part)) for part in ("1/2", "2/2")]
    for process in both:
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
    merge = [sys.executable, "-m", "ragcun_cache", "caches", "merge", "--dataset", "tiny", "--json"]
    merged = start(merge)
    out, said = merged.communicate(timeout=100)
    assert merged.returncode == 0, said
    assert [record["parts"] for record in json.loads(out)] == [2, 2]
    assert shard_files(home) == expected
    for record in json.loads(out):
        assert verify(Path(record["folder"])) == []
    again = start(merge)
    assert "has no parts to merge" in again.communicate(timeout=100)[1]
    assert again.returncode == 2


def _members(group: int) -> list[str]:
    """Return what is left of a process group, but for those that only wait for their end to be noticed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append((path.parent / "cmdline").read_text().replace("\0", " "))
    return found


def _descendants(root: int) -> Iterator[tuple[int, str]]:
    """Yield number and command line of every process below ``root``."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    for number, line in lines.items():
        above = number
        while above > 1 and above != root:
            above = parents.get(above, 0)
        if above == root and number != root:
            yield number, line


@pytest.mark.crash
@LINUX
def test_a_ray_cluster_one_of_whose_workers_is_killed_gives_the_bytes_of_one_process(
    home: Home, start, collection: Collection, expected: dict[str, bytes], tiny_encoder: Path
) -> None:
    pytest.importorskip("ray")
    process = start(command(tiny_encoder, "--engine", "ray", "--workers", "2", "--json"))
    wait_for(lambda: passages(home) >= 2, process)
    working: list[int] = []

    def found() -> bool:
        working[:] = [number for number, line in _descendants(process.pid) if line.startswith("ray::_encode")]
        return bool(working)

    wait_for(found, process)
    os.kill(working[0], signal.SIGKILL)
    assert passages(home) < len(expected) // 2
    out, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert shard_files(home) == expected
    assert [record["encoded"] for record in json.loads(out)] == [70, 330]


def test_no_cluster_at_the_address_is_said_so(home: Home, start, collection: Collection, tiny_encoder: Path) -> None:
    pytest.importorskip("ray")
    process = start(command(tiny_encoder, "--engine", "ray", "--ray-address", "127.0.0.1:1"))
    _, said = process.communicate(timeout=280)
    assert process.returncode == 2
    assert "no Ray cluster answers" in said
    assert "Traceback" not in said


def test_without_ray_the_extra_is_named(
    home: Home, collection: Collection, config: EncodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"ragcun-cache\[ray\]"):
        encode_collection(collection, home, config, EngineConfig(engine="ray"))


def test_poisoned_texts_are_encoded_like_any_other(home: Home, tiny_collection, config: EncodeConfig) -> None:
    folder = tiny_collection(n_passages=1)
    poison = [
        "x" * 1_000_000,
        "x " * 500_000,
        "🦜" * 300,
        "a\0b",
        "\0",
        "",
        " \n\t ",
        "\ufffe\uffff",
        "\u202e\u0301" * 40,
    ]
    with (folder / "corpus.jsonl").open("w") as corpus:
        for row, text in enumerate(poison):
            corpus.write(json.dumps({"_id": f"p{row}", "text": text}) + "\n")
    reports = encode_collection(find_collection("tiny", home), home, config)
    cache = EmbeddingCache(reports[1].folder)
    assert cache.rows == len(poison)
    assert np.isfinite(cache.array()).all()
    assert verify(reports[1].folder) == []


def test_half_a_surrogate_pair_is_refused_with_its_line(home: Home, tiny_collection, config: EncodeConfig) -> None:
    folder = tiny_collection(n_passages=3)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "half", "text": "\\ud83e"}\n')
    with pytest.raises(CollectionError, match=r"corpus\.jsonl:4"):
        encode_collection(find_collection("tiny", home), home, config)
    assert not home.caches.exists() or not list(home.caches.glob("tiny/passage-*"))
