"""Finding collections: by name on the search path, by folder, by download; and saying what there is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ragcun_cache.collections import REGISTRY, collections_on_disk, find_collection, locate, members
from ragcun_cache.collections.registry import Archive, each_name
from ragcun_cache.errors import CollectionError, ConfigError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


@pytest.fixture(autouse=True)
def no_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAGCUN_COLLECTIONS", raising=False)


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(locate, "fetch", refuse)


def copy_of(folder: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(target)


@pytest.mark.usefixtures("no_download")
def test_home_comes_before_the_search_path_and_that_in_its_order(
    home: Home, tmp_path: Path, tiny_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = copy_of(tiny_collection("scifact"), tmp_path / "first" / "scifact")
    second = copy_of(tiny_collection("scifact"), tmp_path / "second" / "scifact")
    monkeypatch.setenv("RAGCUN_COLLECTIONS", f"{tmp_path / 'none'}:{first.parent}:{second.parent}")
    assert find_collection("scifact", home).folder == first
    at_home = tiny_collection("scifact")
    assert find_collection("scifact", home).folder == at_home


@pytest.mark.usefixtures("no_download")
def test_a_folder_that_only_has_the_name_is_passed_over(
    home: Home, tmp_path: Path, tiny_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = copy_of(tiny_collection("scifact"), tmp_path / "elsewhere" / "scifact")
    (home.collections / "scifact").mkdir()
    monkeypatch.setenv("RAGCUN_COLLECTIONS", str(whole.parent))
    assert find_collection("scifact", home).folder == whole


def test_conventions_come_from_the_registry(home: Home, tiny_collection: Callable[..., Path]) -> None:
    for name in ("msmarco", "mine"):
        tiny_collection(name)
    assert find_collection("msmarco", home).test_split == "dev"
    mine = find_collection("mine", home)
    assert (mine.test_split, mine.ignore_identical_ids, mine.sample_of) == ("test", True, None)


@pytest.mark.usefixtures("no_download")
def test_a_folder_is_a_collection_named_after_it(
    home: Home, tmp_path: Path, tiny_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(tiny_collection("x"), tmp_path / "work" / "mine")
    monkeypatch.chdir(folder)
    for text in (str(folder), ".", "../mine", "./"):
        collection = find_collection(text, home)
        assert (collection.name, collection.folder.resolve()) == ("mine", folder.resolve())
        assert collection.dataset == text
    tiny_collection("named")
    assert find_collection("named", home).dataset == "named"


def test_a_folder_below_cqadupstack_keeps_its_full_name(
    home: Home, tmp_path: Path, tiny_collection: Callable[..., Path]
) -> None:
    folder = copy_of(tiny_collection("x"), tmp_path / "cqadupstack" / "android")
    assert find_collection(str(folder), home).name == "cqadupstack/android"


def test_a_folder_without_texts_says_what_lacks(home: Home, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(CollectionError, match=r"no queries\.jsonl"):
        find_collection(str(tmp_path), home)


def test_an_unknown_name_lists_the_registry_and_what_is_on_disk(
    home: Home, tiny_collection: Callable[..., Path]
) -> None:
    tiny_collection("mine")
    with pytest.raises(CollectionError, match="unknown collection 'scifcat'") as error:
        find_collection("scifcat", home)
    choices = str(error.value.expected)
    assert all(name in choices for name in (*REGISTRY, "mine", "pydocs"))
    assert error.value.fix == "did you mean 'scifact'?"


@pytest.mark.parametrize("name", ["../scifact", "/no/such/folder", "~no-such-user/x", "a/b/c", ""])
def test_odd_names_are_unknown(home: Home, name: str) -> None:
    with pytest.raises(CollectionError, match="unknown collection"):
        find_collection(name, home)


@pytest.mark.usefixtures("no_download")
def test_download_can_be_forbidden(home: Home) -> None:
    with pytest.raises(CollectionError, match="not on this machine") as error:
        find_collection("scifact", home, download=False)
    assert error.value.fix == "ragcun-cache collections fetch scifact"


@pytest.mark.usefixtures("no_download")
def test_what_may_not_be_distributed_is_said(home: Home) -> None:
    with pytest.raises(CollectionError, match="'robust04' are not distributed"):
        find_collection("robust04", home)


def test_a_group_is_not_one_collection(home: Home) -> None:
    with pytest.raises(CollectionError, match="'cqadupstack' is 12 collections"):
        find_collection("cqadupstack", home)
    assert len(members("cqadupstack")) == 12
    assert members("scifact") == ("scifact",)


def serve_archive(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str]) -> list[str]:
    """Let ``fetch`` write a zip of these files instead of downloading; return the addresses it is asked for."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    asked = list[str]()

    def fetch(archive: Archive, target: Path) -> None:
        asked.append(archive.url)
        target.write_bytes(packed.getvalue())

    published = Archive(f"http://test/{name}.zip", hashlib.md5(packed.getvalue()).hexdigest())
    monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], archive=published))
    monkeypatch.setattr(locate, "fetch", fetch)
    return asked


LAYOUT = {"corpus.jsonl": '{"_id": "p", "text": "x"}', "queries.jsonl": '{"_id": "q", "text": "y"}'}


@pytest.mark.parametrize("name", ["scifact", "cqadupstack/android"])
def test_a_registered_name_is_downloaded_once(home: Home, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    home.collections.mkdir(parents=True)
    asked = serve_archive(monkeypatch, name, {f"{name}/{file}": text for file, text in LAYOUT.items()})
    collection = find_collection(name, home)
    assert collection.folder == home.collections / name
    assert find_collection(name, home) == collection
    assert len(asked) == 1
    top = name.partition("/")[0]
    record = json.loads((home.collections / top / "collection.json").read_text())
    assert record["url"] == asked[0]
    assert sorted(path.name for path in home.collections.iterdir()) in ([top], [f".{top}.lock", top])
    assert collections_on_disk(home) == {name: collection.folder}


def test_a_member_of_a_group_is_downloaded_beside_those_that_are_there(
    home: Home, tiny_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = (tiny_collection("cqadupstack/android") / "corpus.jsonl").read_bytes()
    names = ("cqadupstack/android", "cqadupstack/english")
    files = {f"{name}/{file}": text for name in names for file, text in LAYOUT.items()}
    asked = serve_archive(monkeypatch, "cqadupstack/english", files)
    assert find_collection("cqadupstack/english", home).folder == home.collections / "cqadupstack" / "english"
    assert (home.collections / "cqadupstack" / "android" / "corpus.jsonl").read_bytes() == mine
    assert set(collections_on_disk(home)) == set(names)
    find_collection("cqadupstack/english", home)
    assert len(asked) == 1


@pytest.mark.parametrize("torn", [True, False])
def test_an_archive_that_was_torn_since_is_downloaded_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    home.collections.mkdir(parents=True)
    asked = serve_archive(monkeypatch, "scifact", {f"scifact/{file}": text for file, text in LAYOUT.items()})
    zipped = home.collections / ".scifact.zip"
    locate.fetch(Archive("earlier", ""), zipped)
    if torn:
        zipped.write_bytes(zipped.read_bytes()[:-9])
    find_collection("scifact", home)
    assert asked == (["earlier", "http://test/scifact.zip"] if torn else ["earlier"])
    assert not zipped.exists()


def test_a_download_is_durable_before_its_zip_goes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.collections.mkdir(parents=True)
    layout = {f"scifact/{file}": text for file, text in LAYOUT.items()}
    serve_archive(monkeypatch, "scifact", layout | {"scifact/qrels/test.tsv": "query-id\tcorpus-id\tscore\n"})
    fsync, unlink, synced = os.fsync, Path.unlink, set[int]()

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def checked(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".zip":
            folder = home.collections / "scifact"
            assert {one.stat().st_ino for one in (folder.parent, folder, *folder.rglob("*"))} <= synced
            synced.clear()
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "unlink", checked)
    find_collection("scifact", home)
    assert not synced


def test_an_archive_of_something_else_leaves_no_collection(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.collections.mkdir(parents=True)
    serve_archive(monkeypatch, "scifact", {"other/corpus.jsonl": "x"})
    with pytest.raises(CollectionError, match="has not the folder it should"):
        find_collection("scifact", home)
    assert collections_on_disk(home) == {}


def test_registry_names_all_of_beir() -> None:
    assert len(REGISTRY) == 18 + 12
    for name, published in REGISTRY.items():
        assert published.name == name
        assert published.archive is None or len(published.archive.md5) == 32
    assert {name for name, one in REGISTRY.items() if one.archive is None} == {
        "bioasq",
        "signal1m",
        "trec-news",
        "robust04",
    }


def test_published_sizes_are_those_of_the_real_files(real_data: Callable[[str], Path], home: Home) -> None:
    for name in ("scifact", "nfcorpus"):
        collection = find_collection(str(real_data(name)), home)
        with collection.path(Role.PASSAGE).open("rb") as lines:
            assert sum(1 for _ in lines) == REGISTRY[name].passages
        assert len(collection.qrels("test")) == REGISTRY[name].test_queries


def test_names_may_be_divided_by_commas_and_stand_for_groups(tmp_path: Path) -> None:
    assert each_name(["scifact, nfcorpus", "scifact"]) == ["scifact", "nfcorpus"]
    assert each_name(["cqadupstack"])[0] == "cqadupstack/android" and len(each_name(["cqadupstack"])) == 12
    folder = tmp_path / "one,two"
    folder.mkdir()
    assert each_name([str(folder)]) == [str(folder)]


@pytest.mark.parametrize("given", ["", ",", " , "])
def test_no_name_is_no_collection(given: str) -> None:
    with pytest.raises(ConfigError, match="no collection is named"):
        each_name([given])
