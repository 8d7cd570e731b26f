from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from ragcun_cache.cache import CacheLayout, EmbeddingCache, gc
from ragcun_cache.cache.part import Part
from ragcun_cache.cli.main import app
from ragcun_cache.collections import find_collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


@pytest.fixture
def cached(home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the passage cache of a small collection, in a home that the command line finds."""
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    tiny_collection(n_passages=200)
    config = EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu", shard_rows=50)
    return encode_collection(find_collection("tiny", home), home, config)[1].folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["caches", *arguments], catch_exceptions=False)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def test_ls_info_and_du_say_what_there_is(cached: Path) -> None:
    records = json.loads(run("ls", "--json").stdout)
    assert {(one["role"], one["rows"], one["complete"]) for one in records} == {
        ("query", 70, True),
        ("passage", 200, True),
    }
    assert "tiny passage: 200 × 32 float16 memmap" in run("ls").stdout
    (about,) = json.loads(run("info", str(cached), "--json").stdout)
    assert about["spec"]["max_seq_length"] == 16
    assert "  spec.max_seq_length: 16\n" in run("info", str(cached)).stdout
    total = json.loads(run("du", "--json").stdout)["total"]
    assert total == sum(one["bytes"] for one in records) > 200 * 32 * 2


def test_a_name_that_names_nothing_is_an_error(cached: Path) -> None:
    with pytest.raises(CacheError, match="no cache 'elsewhere'"):
        run("verify", "elsewhere")


def test_verify_finds_damage_and_repairs_only_that(cached: Path, tiny_encoder: Path) -> None:
    assert run("verify").exit_code == 0
    before = state(cached)
    flip(cached / "vectors-00001.npy")
    (cached / "rows-00003.parquet").unlink()
    flip(cached / "manifest.json")
    found = run("verify", str(cached))
    assert found.exit_code == 1
    for name in ("vectors-00001.npy", "rows-00003.parquet", "manifest.json"):
        assert f"found: {name}" in found.stdout
    done = run("verify", str(cached), "--repair", "--model", str(tiny_encoder))
    assert done.exit_code == 0, done.stdout
    after = state(cached)
    assert {name: content for name, (content, *_) in after.items()} == {
        name: content for name, (content, *_) in before.items()
    }
    touched = {name for name in before if before[name][1:] != after[name][1:]}
    assert touched == {"vectors-00001.npy", "rows-00003.parquet", "manifest.json"}
    assert EmbeddingCache(cached).rows == 200


def test_a_part_is_repaired_like_a_cache(cached: Path, home: Home, tiny_encoder: Path) -> None:
    config = EncodeConfig(
        model=str(tiny_encoder), precision="fp32", device="cpu", shard_rows=50, storage_dtype="float32"
    )
    part = encode_collection(find_collection("tiny", home), home, config, part=Part(2, 2))[1].folder
    before = state(part)
    flip(part / "vectors-00003.npy")
    (part / "manifest.json").unlink()
    assert run("verify", str(part)).exit_code == 1
    done = run("verify", str(part), "--repair", "--model", str(tiny_encoder))
    assert done.exit_code == 0 and "shard 3: encoded again, byte for byte" in done.stdout
    assert {name: content for name, (content, *_) in state(part).items()} == {
        name: content for name, (content, *_) in before.items()
    }


def test_repair_wants_the_model_that_made_the_cache(cached: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    other = tmp_path / tiny_encoder.name
    shutil.copytree(tiny_encoder, other)
    flip(other / "tokenizer_config.json")
    flip(cached / "vectors-00001.npy")
    with pytest.raises(CacheError, match=r"not the model that made the cache[\s\S]*tokenizer"):
        run("verify", str(cached), "--repair", "--model", str(other))


def test_the_model_is_the_one_that_the_cache_names(cached: Path, home: Home, tiny_encoder: Path) -> None:
    import shutil

    shutil.copytree(tiny_encoder, home.models / tiny_encoder.name)
    flip(cached / "vectors-00001.npy")
    assert run("verify", str(cached), "--repair", "--re-encode", "3").exit_code == 0


def test_a_cache_that_cannot_be_encoded_again_does_not_hide_the_others(cached: Path, tiny_encoder: Path) -> None:
    queries = next(one for one in cached.parent.iterdir() if one.name.startswith("query"))
    manifest = json.loads((queries / "manifest.json").read_text())
    done = run("verify", "--re-encode", "3", "--model", str(tiny_encoder), "--dataset", "nowhere", "--json")
    records = json.loads(done.stdout)
    assert done.exit_code == 1 and len(records) == 2 and manifest["role"] == "query"
    assert all("needs the collection" in line for record in records for line in record["left"])
    shown = run("verify", "--re-encode", "3", "--dataset", "nowhere").stdout
    assert shown.count("not as it should be") == 2 and shown.count("left: ") == 2


@pytest.mark.parametrize("content", ["{", '{"schema_version": 99, "manifest_sha256": ""}'])
def test_a_wrecked_cache_does_not_hide_the_others(
    home: Home, tiny_pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    pair = tiny_pair()
    wrecked, other = pair.query.folder, pair.passage.folder
    for name in ("manifest.json", "manifest.copy.json"):
        (wrecked / name).write_text(content)
    flip(other / "vectors-00000.npy")
    done = run("verify", "--json")
    left = {record["folder"]: record["left"] for record in json.loads(done.stdout)}
    assert done.exit_code == 1 and left.keys() == {str(wrecked), str(other)}
    assert str(wrecked) in left[str(wrecked)][0] and left[str(other)][0].startswith("vectors-00000.npy")
    for command in ("ls", "du"):
        caplog.clear()
        assert str(other) in run(command).stdout
        assert f"a cache is left out: {left[str(wrecked)][0]}" in caplog.text
    with pytest.raises(CacheError, match="manifest"):
        run("ls", str(wrecked))


def test_rows_encoded_again_are_compared(cached: Path, tiny_encoder: Path) -> None:
    done = run("verify", str(cached), "--re-encode", "9", "--model", str(tiny_encoder), "--json")
    assert done.exit_code == 0
    (record,) = json.loads(done.stdout)
    assert record["re_encoded"]["rows"] == 9
    assert record["re_encoded"]["min_cosine"] > 0.9999


def test_of_a_cache_without_rows_none_is_encoded_again(tmp_path: Path, cache_of: Callable[..., Path]) -> None:
    from ragcun_cache.encoder.recheck import check_sample

    cache = EmbeddingCache(cache_of(tmp_path, "empty", Role.QUERY, [], np.empty((0, 4), np.float16)))
    found = check_sample(cache, None, None, 8)  # Neither the collection nor the model is needed.
    assert (found.rows, found.min_cosine) == (0, 1.0)


def test_an_order_that_is_not_the_collections_is_found(cached: Path, home: Home, tiny_encoder: Path) -> None:
    from ragcun_cache.cache import verify

    cache = EmbeddingCache(cached)
    assert verify(cached, expected_ids=cache.ids) == []
    swapped = [cache.ids[1], cache.ids[0], *cache.ids[2:]]
    (damage,) = verify(cached, expected_ids=swapped)
    assert "row 0 is 'p0', the collection has 'p1' there" in str(damage)


def test_diff_names_the_fields(cached: Path, home: Home, tiny_encoder: Path) -> None:
    config = EncodeConfig(model=str(tiny_encoder), precision="bf16", device="cpu", max_seq_length=8)
    other = encode_collection(find_collection("tiny", home), home, config)[1].folder
    out = run("diff", str(cached), str(other)).stdout
    assert "max_seq_length: 16 → 8" in out
    assert "precision: 'fp32' → 'bf16'" in out
    assert "200 ids in both" in out
    same = json.loads(run("diff", str(cached), str(cached), "--json").stdout)
    assert same["differences"] == []
    assert same["identical_rows"] == same["shared_ids"] == 200


def test_another_spec_is_refused_field_by_field(cached: Path) -> None:
    spec = EmbeddingCache(cached).manifest.spec
    EmbeddingCache(cached, spec=spec)
    with pytest.raises(CacheError, match="max_seq_length: 16 → 512; precision: 'fp32' → 'bf16'"):
        EmbeddingCache(cached, spec={**spec, "max_seq_length": 512, "precision": "bf16"})


def test_gc_is_dry_by_default_and_spares_what_a_head_refers_to(cached: Path, home: Home, tiny_encoder: Path) -> None:
    assert "nothing to remove" in run("gc").stdout
    with (home.collections / "tiny" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "new", "text": "one more"}\n')
    os.utime(cached / "manifest.json", (0, 0))
    config = EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu", shard_rows=50)
    newer = encode_collection(find_collection("tiny", home), home, config)[1].folder
    assert "could go" in run("gc").stdout
    assert cached.exists()

    manifest = EmbeddingCache(cached).manifest
    head = home.heads / "some-head" / "head.json"
    head.parent.mkdir(parents=True)
    reference = {"fingerprint": manifest.fingerprint, "content_sha256": manifest.content_sha256}
    head.write_text(json.dumps({"caches": {"collection": "tiny", "passage": reference}}))
    assert "kept for 1 heads such as some-head" in run("gc", "--delete").stdout
    assert cached.exists()
    run("gc", "--delete", "--force")
    assert not cached.exists()
    assert EmbeddingCache(newer).rows == 201


def test_gc_keeps_the_caches_of_folders_that_share_a_name(
    cached: Path, home: Home, tmp_path: Path, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu")
    passages = []
    for seed, team in enumerate(("a", "b")):
        folder = shutil.copytree(tiny_collection(f"made-{team}", seed=seed), tmp_path / team / "docs")
        passages.append(encode_collection(find_collection(str(folder), home), home, config)[1].folder)
    assert passages[0].parent == passages[1].parent
    monkeypatch.chdir(tmp_path / "a")  # Where a folder `docs` is, which is not the one of both caches.
    assert "nothing to remove" in run("gc", "--delete").stdout
    assert all(EmbeddingCache(folder).rows == 120 for folder in passages)


def test_gc_keeps_what_the_collection_is_again(cached: Path, home: Home, tiny_encoder: Path) -> None:
    corpus = home.collections / "tiny" / "corpus.jsonl"
    before = corpus.read_text()
    config = EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu", shard_rows=50)
    corpus.write_text(before + '{"_id": "new", "text": "one more"}\n')
    encode_collection(find_collection("tiny", home), home, config)
    assert str(cached) in run("gc").stdout
    corpus.write_text(before)
    assert "nothing to remove" in run("gc").stdout


def test_gc_keeps_a_cache_that_is_being_written_and_goes_on(cached: Path, home: Home, tiny_encoder: Path) -> None:
    corpus = home.collections / "tiny" / "corpus.jsonl"
    config = EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu", shard_rows=50)
    folders = [cached]
    for row in range(2):
        with corpus.open("a") as more:
            more.write(f'{{"_id": "new {row}", "text": "one more"}}\n')
        folders.append(encode_collection(find_collection("tiny", home), home, config)[1].folder)
    first, second = sorted(folders[:2])
    with FileLock(first / ".lock"):
        said = run("gc", "--delete")
    assert said.exit_code == 0
    assert f"kept: {first}" in said.stdout
    assert "another process is writing this cache" in said.stdout
    assert f"removed: {second}" in said.stdout
    assert [folder.exists() for folder in (first, second, folders[2])] == [True, False, True]
    (record,) = json.loads(run("gc", "--delete", "--json").stdout)
    assert (record["removed"], record["refused"]) == (True, None)


def mark(folder: Path, *, complete: bool) -> None:
    manifest = EmbeddingCache(folder, allow_incomplete=True).manifest
    manifest.model_copy(update={"complete": complete}).write(CacheLayout(folder))


def two_unfinished(home: Home, cache_of: Callable[..., Path]) -> list[Path]:
    folders = []
    for name in ("first", "second"):
        folders.append(cache_of(home.caches, name, Role.PASSAGE, ["p0", "p1"], np.eye(2, dtype=np.float32)))
        mark(folders[-1], complete=False)
    return folders


def test_gc_keeps_a_cache_that_was_completed_while_it_looked_at_others(
    cache_of, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    folders = two_unfinished(home, cache_of)
    find = gc.find_garbage

    def find_slowly(*arguments: Any) -> list[gc.Garbage]:
        found = find(*arguments)
        mark(folders[0], complete=True)
        return found

    monkeypatch.setattr(gc, "find_garbage", find_slowly)
    said = run("gc", "--delete").stdout
    assert f"kept: {folders[0]}" in said
    assert "has changed since" in said
    assert EmbeddingCache(folders[0]).rows == 2
    assert f"removed: {folders[1]}" in said
    assert not folders[1].exists()


@pytest.mark.usefixtures("like_nfs")
def test_gc_removes_what_lies_on_nfs_and_goes_on_where_a_file_stays(
    cache_of, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    folders = two_unfinished(home, cache_of)
    remove = gc.remove_files

    def remove_second(layout: CacheLayout) -> None:
        if layout.folder == folders[0]:
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(layout)

    with monkeypatch.context() as patched:
        patched.setattr(gc, "remove_files", remove_second)
        said = run("gc", "--delete").stdout
    assert f"kept: {folders[0]}" in said and "cannot be removed (Permission denied)" in said
    assert [folder.exists() for folder in folders] == [True, False]
    run("gc", "--delete")
    assert not folders[0].exists()


def test_a_missing_manifest_is_found_and_restored(cached: Path) -> None:
    before = (cached / "manifest.json").read_bytes()
    (cached / "manifest.json").unlink()
    (cached / ".used").unlink(missing_ok=True)
    for command in ("ls", "du"):
        assert str(cached) in run(command).stdout
    assert run("verify").exit_code == 1
    assert run("verify", str(cached), "--repair").exit_code == 0
    assert (cached / "manifest.json").read_bytes() == before
