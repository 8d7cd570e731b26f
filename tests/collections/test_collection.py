"""A collection as one thing: pairs, splits, content hash, check."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from ragcun_cache.collections import Collection, check_collection
from ragcun_cache.errors import CollectionError
from ragcun_cache.role import Role


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "p1", "title": "T", "text": "one"}\n{"_id": "p2", "text": ""}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "second"}\n')
    (folder / "qrels" / "test.tsv").write_text("q2\tp1\t1\nq1\tp2\t0\nq2\tp2\t2\nq1\tp1\t1\n")
    return folder


def test_pairs_are_the_relevant_in_file_order(folder: Path) -> None:
    collection = Collection("small", folder)
    assert collection.pairs("test") == [("q2", "p1"), ("q2", "p2"), ("q1", "p1")]
    assert collection.qrels("test") == {"q2": {"p1": 1, "p2": 2}, "q1": {"p2": 0, "p1": 1}}


def test_unknown_split_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(CollectionError, match=r"unknown split of 'small' 'tset'") as error:
        Collection("small", folder).qrels("tset")
    assert error.value.expected == "one of test"
    assert error.value.fix == "did you mean 'test'?"


def test_missing_texts_are_named(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    with pytest.raises(CollectionError, match=r"has no queries\.jsonl"):
        Collection("small", folder).path(Role.QUERY)


def test_flaws_are_logged_when_the_stream_ends(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(Collection("small", folder).texts(Role.PASSAGE))
    assert caplog.messages == [f"empty text: 1 (first at {folder / 'corpus.jsonl'}:2)"]


def test_check_counts_judgements_that_point_nowhere(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q1\tp1\t1\nq1\tgone\t1\nlost\tgone\t1\n")
    flaws = {
        flaw.kind: (flaw.file.name, flaw.first_line, flaw.count) for flaw in check_collection(Collection("s", folder))
    }
    assert flaws == {
        "empty text": ("corpus.jsonl", 2, 1),
        "judged passage does not exist": ("dev.tsv", 2, 2),
        "judged query does not exist": ("dev.tsv", 3, 1),
    }


def test_content_hash_is_of_the_bytes_and_leaves_no_trace(folder: Path) -> None:
    collection, path = Collection("small", folder), folder / "corpus.jsonl"
    before = sorted(folder.rglob("*"))
    assert collection.content_sha256(Role.PASSAGE) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(folder.rglob("*")) == before
