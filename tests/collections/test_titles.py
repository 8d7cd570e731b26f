"""Titles as queries: pairs without judgements, made again only when the passages change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cache.collections import Collection, check_collection, find_collection, title_pairs
from ragcun_cache.errors import CollectionError
from ragcun_cache.home import Home
from ragcun_cache.role import Role

PASSAGES = [("a", "Iron", "A metal."), ("b", "", "No title."), ("c", " Zinc ", "Another."), ("d", "Lead", " ")]


def write(folder: Path, passages: list[tuple[str, str, str]]) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"_id": one, "title": title, "text": text}) for one, title, text in passages]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "which metal"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\n")
    return folder


@pytest.fixture
def source(home: Home, tmp_path: Path) -> Collection:
    return find_collection(str(write(tmp_path / "metals", PASSAGES)), home)


def texts(collection: Collection, role: Role) -> dict[str, tuple[str, str]]:
    batches = list(collection.texts(role))
    return {one: (title, text) for b in batches for one, title, text in zip(b.ids, b.titles, b.texts, strict=True)}


def test_every_title_finds_the_text_below_it(home: Home, source: Collection) -> None:
    titles = title_pairs(source, home)
    assert texts(titles, Role.QUERY) == {"title-a": ("", "Iron"), "title-c": ("", "Zinc")}
    assert titles.splits() == ("train",)
    assert titles.pairs("train") == [("title-a", "a"), ("title-c", "c")]
    assert {one: title for one, (title, _) in texts(titles, Role.PASSAGE).items()} == dict.fromkeys("abcd", "")
    assert texts(titles, Role.PASSAGE)["a"] == ("", "A metal.")
    assert find_collection("metals-titles", home) == titles


def test_whole_passages_are_those_of_the_collection(home: Home, source: Collection) -> None:
    whole = title_pairs(source, home, whole=True)
    assert whole.name == "metals-titles-whole"
    assert texts(whole, Role.PASSAGE) == texts(source, Role.PASSAGE)
    assert whole.pairs("train") == title_pairs(source, home).pairs("train")
    assert not [flaw for flaw in check_collection(whole) if "judged" in str(flaw)]


def test_it_is_written_again_only_when_the_passages_change(home: Home, source: Collection) -> None:
    made = title_pairs(source, home).path(Role.QUERY)
    before = made.stat().st_ino
    title_pairs(source, home)
    assert made.stat().st_ino == before
    write(source.folder, [("a", "Iron", "A metal."), ("e", "Tin", "Soft.")])
    assert title_pairs(source, home).pairs("train") == [("title-a", "a"), ("title-e", "e")]


def test_a_folder_of_the_same_name_that_somebody_else_made_is_left_alone(home: Home, source: Collection) -> None:
    own = write(home.collections / "metals-titles", PASSAGES)
    for record in (None, {"titles_of": "stones"}):
        if record:
            (own / "collection.json").write_text(json.dumps(record))
        before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
        with pytest.raises(CollectionError, match=r"titles_of 'metals'[\s\S]*rename the folder"):
            title_pairs(source, home)
        assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def test_without_titles_there_is_nothing_to_learn_from(home: Home, source: Collection) -> None:
    write(source.folder, [("a", "", "A metal."), ("b", "  ", "Another.")])
    with pytest.raises(CollectionError, match="no passage of 'metals' has a title"):
        title_pairs(source, home)
    assert not (home.collections / "metals-titles").exists()
