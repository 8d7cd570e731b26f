from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragcun_cache.cache import CacheWriter, EmbeddingCache, Manifest, Shard, list_caches
from ragcun_cache.cache.part import Part
from ragcun_cache.collections import Collection, Texts, find_collection
from ragcun_cache.encoder import EncodeConfig, EncodeReport, encode_collection, pipeline
from ragcun_cache.encoder.phases import Phases
from ragcun_cache.encoder.torch_backend import TorchBackend
from ragcun_cache.errors import CacheError, CollectionError, ConfigError
from ragcun_cache.home import Home
from ragcun_cache.progress import Advance
from ragcun_cache.role import Role


def config_of(model: Path, **settings: object) -> EncodeConfig:
    return EncodeConfig.model_validate({"model": str(model), "precision": "fp32", "device": "cpu", **settings})


def vector_bytes(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.caches)): path.read_bytes()
        for path in sorted(home.caches.rglob("*"))
        if path.name.startswith(("vectors-", "rows-"))
    }


def test_vectors_are_those_of_sentence_transformers(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    tiny_collection()
    collection = find_collection("tiny", home)
    encode_collection(collection, home, config_of(tiny_encoder, storage_dtype="float32"))
    model = SentenceTransformer(str(tiny_encoder), device="cpu", local_files_only=True)
    for role in Role:
        texts = [
            f"{title} {text}".strip()
            for batch in collection.texts(role)
            for title, text in zip(batch.titles, batch.texts, strict=True)
        ]
        (folder,) = (home.caches / "tiny").glob(f"{role}-*")
        cache = EmbeddingCache(folder)
        np.testing.assert_allclose(cache.array(), model.encode(texts), atol=1e-5)
        lengths = [len(ids) for ids in model.tokenizer(texts)["input_ids"]]
        assert cache.manifest.truncated == sum(length > 16 for length in lengths)
        assert cache.manifest.tokens == sum(min(length, 16) for length in lengths)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-3)])
def test_the_batch_policy_does_not_change_a_vector(tiny_encoder: Path, precision: str, tolerance: float) -> None:
    backend = TorchBackend(tiny_encoder, device="cpu", precision=precision, max_seq_length=16)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.text(max_size=60), min_size=1, max_size=12))
    def alone_or_together(texts: list[str]) -> None:
        tokens = backend.tokenise(texts)
        together_bd, _ = backend.embed(tokens.input_ids, max(map(len, tokens.input_ids)))
        for row, ids in enumerate(tokens.input_ids):
            alone_bd, _ = backend.embed([ids], len(ids))
            assert abs(1.0 - float(alone_bd[0] @ together_bd[row])) < tolerance
            if precision == "fp32":
                np.testing.assert_allclose(alone_bd[0], together_bd[row], atol=tolerance)

    alone_or_together()


def test_norms_are_those_before_normalisation(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    reports = encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder))
    norms = EmbeddingCache(reports[0].folder).norms
    assert (norms > 0).all()
    assert norms.std() > 1e-4


def test_a_second_encode_does_nothing(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    first = encode_collection(collection, home, config_of(tiny_encoder))
    assert [report.encoded for report in first] == [70, 120]
    before = vector_bytes(home)
    assert [report.encoded for report in encode_collection(collection, home, config_of(tiny_encoder))] == [0, 0]
    assert vector_bytes(home) == before


def test_other_settings_make_another_cache(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    folders = {
        report.folder
        for settings_ in (
            {},
            {"precision": "bf16"},
            {"max_seq_length": 8},
            {"query_prompt": "q: ", "passage_prompt": "p"},
        )
        for report in encode_collection(collection, home, config_of(tiny_encoder, **settings_))
    }
    assert len(folders) == 8


def test_a_changed_collection_leaves_the_old_vectors_alone(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    folder = tiny_collection()
    encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder))
    before = vector_bytes(home)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "new", "text": "one more"}\n')
    reports = encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder))
    assert [report.manifest.rows for report in reports] == [70, 121]
    assert before.items() <= vector_bytes(home).items()


def test_bad_input_touches_nothing_that_is_cached(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    folder = tiny_collection()
    encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder))
    before = vector_bytes(home)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write("not json\n")
    with pytest.raises(CollectionError, match=r"corpus\.jsonl:121"):
        encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder))
    assert vector_bytes(home) == before


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"device": "gpu7"}, r"unknown device 'gpu7'[\s\S]*auto, cpu"),
        ({"precision": "fp16"}, r"precision of torch on cpu[\s\S]*auto, bf16, fp32"),
    ],
)
def test_an_impossible_setting_names_the_possible(
    home: Home, tiny_collection, tiny_encoder: Path, settings_: dict[str, str], message: str
) -> None:
    tiny_collection()
    with pytest.raises(ConfigError, match=message):
        encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder, **settings_))


def test_a_second_writer_is_refused(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    from filelock import FileLock

    tiny_collection()
    collection = find_collection("tiny", home)
    reports = encode_collection(collection, home, config_of(tiny_encoder))
    folder = reports[0].folder
    (folder / "manifest.json").unlink()
    with FileLock(folder / ".lock"), pytest.raises(CacheError, match="another process is writing"):
        encode_collection(collection, home, config_of(tiny_encoder))


@pytest.mark.crash
def test_killed_and_resumed_is_byte_identical(home: Home, tmp_path: Path, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection(n_passages=900)
    whole = Home(tmp_path / "whole")
    settings_ = {"shard_rows": 64, "batch_tokens": 64}
    encode_collection(find_collection("tiny", home), whole, config_of(tiny_encoder, **settings_))

    command = [sys.executable, "-m", "ragcun_cache", "encode", "--dataset", "tiny", "--model", str(tiny_encoder)]
    command += ["--precision", "fp32", "--device", "cpu", "--shard-rows", "64", "--batch-tokens", "64"]
    environment = {**os.environ, "RAGCUN_HOME": str(home.root)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(home.caches.glob("tiny/passage-*/vectors-*.npy"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = home.caches.glob("tiny/passage-*")
    safe = EmbeddingCache(folder, allow_incomplete=True).rows
    assert 0 < safe < 900
    with pytest.raises(CacheError, match="not complete"):
        EmbeddingCache(folder)

    reports = encode_collection(find_collection("tiny", home), home, config_of(tiny_encoder, **settings_))
    assert [report.encoded for report in reports] == [0, 900 - safe]
    assert vector_bytes(home) == vector_bytes(whole)
    assert not list(home.caches.rglob("*.partial-*"))


def test_a_file_that_changed_and_changed_back_is_not_taken_for_the_old_one(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    append, texts = CacheWriter.append, Collection.texts
    seen: list[str] = []

    def interrupted(self: CacheWriter, shard: Shard) -> None:
        if shard.ids[0] == "p40":
            raise KeyboardInterrupt
        append(self, shard)

    def edited(self: Collection, role: Role) -> Iterator[Texts]:
        for batch in texts(self, role):
            seen.append(role)
            yield dataclasses.replace(batch, titles=[title.replace("title 7", "other") for title in batch.titles])

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CacheWriter, "append", interrupted)
        patch.setattr(Collection, "texts", edited)
        encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40))
    assert Role.PASSAGE in seen
    with pytest.raises(CacheError, match="shard 0 is of other texts than the collection has now"):
        encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40))


def test_an_edit_that_was_taken_back_after_all_shards_were_written_is_seen(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tiny_collection() / "corpus.jsonl"
    collection = find_collection("tiny", home)
    text, content_sha256 = corpus.read_text(), Collection.content_sha256

    def edited_after(self: Collection, role: Role) -> str:
        digest = content_sha256(self, role)
        if role is Role.PASSAGE:
            corpus.write_text(text.replace("title 7", "other"))
        return digest

    for part in (None, Part(1, 1)):
        with monkeypatch.context() as patch, pytest.raises(CacheError, match="the collection changed while"):
            patch.setattr(Collection, "content_sha256", edited_after)
            encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40), part=part)
        corpus.write_text(text)
        with pytest.raises(CacheError, match="shard 0 is of other texts than the collection has now"):
            encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40), part=part)
        assert not any(manifest.finished for _, manifest in list_caches(home.caches) if manifest.role is Role.PASSAGE)
        shutil.rmtree(home.caches)


def test_ctrl_c_ends_the_check_of_what_is_there_between_two_shards(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_collection()
    collection, config = find_collection("tiny", home), config_of(tiny_encoder, shard_rows=8)
    append, rows_table = CacheWriter.append, EmbeddingCache.rows_table
    read: list[int] = []

    def cut(self: CacheWriter, shard: Shard) -> None:
        if shard.ids[-1] == "p119":
            raise KeyboardInterrupt
        append(self, shard)

    def pressed(self: EmbeddingCache, index: int, columns: list[str] | None = None) -> object:
        if self.role is Role.PASSAGE:
            read.append(index)
            if index == 1:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # Time for the main thread to be told, if this is another.
        return rows_table(self, index, columns)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CacheWriter, "append", cut)
        encode_collection(collection, home, config)
    # Who starts tests in the background of a shell has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(EmbeddingCache, "rows_table", pressed)
            encode_collection(collection, home, config)
    finally:
        signal.signal(signal.SIGINT, before)
    assert read == [0, 1]
    assert [report.encoded for report in encode_collection(collection, home, config)] == [0, 8]


def test_the_check_of_what_is_there_shows_its_progress(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    shown: list[tuple[str, float | None, float]] = []

    @contextmanager
    def told(label: str, unit: str, total: float | None) -> Iterator[Advance]:
        done = 0.0

        def advance(amount: float, **extra: float) -> None:
            nonlocal done
            done += amount

        yield advance
        shown.append((label, total, done))

    monkeypatch.setattr(pipeline, "progress", told)
    encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40), part=Part(2, 3))
    assert shown == [("encode tiny queries", 40, 40), ("check tiny passages", 40, 40), ("encode tiny passages", 40, 40)]


def test_every_attempt_is_recorded_with_what_it_was(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_collection()
    collection, append = find_collection("tiny", home), CacheWriter.append

    def cut(self: CacheWriter, shard: Shard) -> None:
        if shard.ids[0] == "p80":
            raise KeyboardInterrupt
        append(self, shard)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CacheWriter, "append", cut)
        patch.setattr(pipeline, "machine", lambda: {"cpu": "the first"})
        encode_collection(collection, home, config_of(tiny_encoder, shard_rows=40, batch_tokens=64))
    monkeypatch.setattr(pipeline, "machine", lambda: {"cpu": "the second"})
    config = config_of(tiny_encoder, shard_rows=40, batch_tokens=128)
    for _ in range(2):  # Once complete, it is not written again.
        manifest = encode_collection(collection, home, config)[1].manifest
        first, second = manifest.provenance["attempts"]
        assert (first["machine"]["cpu"], first["batch_tokens"]) == ("the first", 64)
        assert (second["machine"]["cpu"], second["batch_tokens"], second["rows_before"]) == ("the second", 128, 80)
        assert first["began"] == manifest.provenance["created"] < second["began"]
        assert first.keys().isdisjoint({"seconds", "phases"})
        assert second["phases"]["tokens"] < manifest.tokens
        assert second["seconds"] > 0


def test_the_rate_is_of_the_time_that_passed(tmp_path: Path) -> None:
    from ragcun_cache.cli.encode import _lines

    spec = {"backend": "torch", "precision": "fp32"}
    manifest = Manifest(
        collection="tiny",
        role=Role.PASSAGE,
        content_sha256="",
        spec=spec,
        fingerprint="",
        encoder="",
        dim=2,
        dtype="float16",
        shard_rows=1,
        total_rows=0,
        provenance={"workers": 1},
    )
    phases = Phases(forward=40.0, tokens=10_000)  # Of four workers at once.
    report = EncodeReport(Role.PASSAGE, tmp_path, manifest, 100, 0, 0, 15.0, phases, loop_seconds=10.0)
    assert "1,000 tokens/s" in _lines("tiny", report)


def test_auto_precision_is_the_same_for_queries_and_passages(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    encode_collection(collection, home, config_of(tiny_encoder))
    (passages,) = home.caches.glob("tiny/passage-*")
    for path in (passages / "manifest.copy.json", passages / "manifest.json"):
        path.unlink()
    reports = encode_collection(collection, home, config_of(tiny_encoder, precision="auto"))
    assert len({report.manifest.encoder for report in reports}) == 1
    assert [r.encoded for r in encode_collection(collection, home, config_of(tiny_encoder, precision="auto"))] == [0, 0]
