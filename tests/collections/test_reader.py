"""Reading corpus.jsonl and queries.jsonl: what is refused, what is counted, what comes back unchanged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.lines import read_lines
from ragcun_cache.collections.reader import Texts, read_texts
from ragcun_cache.collections.seen import SeenIds
from ragcun_cache.errors import CollectionError


def read(path: Path, batch_rows: int = 8192) -> tuple[list[Texts], list[str]]:
    flaws = Flaws()
    batches = list(read_texts(path, batch_rows, flaws))
    return batches, [str(flaw) for flaw in flaws.all()]


def record(one_id: object, text: object = "some words", **more: object) -> bytes:
    return json.dumps({"_id": one_id, "text": text} | more).encode()


@pytest.mark.parametrize(
    ("second_line", "problem", "detail"),
    [
        (b"not json", "line is not JSON", ""),
        (b'{"_id": "1", "text": "cut', "line is not JSON", ""),
        (b'{"_id": "1", "text": NaN}', "line is not JSON", ""),
        (b'["1", "text"]', "line is not a JSON object", "list"),
        (b'"1"', "line is not a JSON object", "str"),
        (b'{"id": "1", "text": "x"}', "record has no _id", "['id', 'text']"),
        (b'{"_id": "1", "contents": "x"}', "record has no text", "['_id', 'contents']"),
        (record(None), "_id is not a string or an integer", "None"),
        (record(1.5), "_id is not a string or an integer", "1.5"),
        (record(True), "_id is not a string or an integer", "True"),
        (record(["1"]), "_id is not a string or an integer", "['1']"),
        (record(""), "_id is not a string or an integer", "''"),
        (record("1", ["x"]), "text is not a string", "['x']"),
        (record("1", title=3), "title is not a string", "3"),
        (b'{"_id": "1", "text": "caf\xe9 au lait"}', "invalid UTF-8", "0xe9"),
        (record("0"), "duplicate _id '0'", "line 1"),
        (b"", "blank line between records", "none"),
    ],
)
def test_bad_line_is_refused_with_file_and_line(tmp_path: Path, second_line: bytes, problem: str, detail: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join([record("0"), second_line, record("2")]) + b"\n")
    with pytest.raises(CollectionError) as error:
        read(path)
    assert error.value.problem == problem
    assert str(error.value.where) == f"{path}:2"
    assert detail in str(error.value)


def test_duplicate_across_batches_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join(record(one) for one in [*range(50), 3]))
    with pytest.raises(CollectionError, match="duplicate _id '3'") as error:
        read(path, batch_rows=7)
    assert str(error.value.where) == f"{path}:51"
    assert error.value.found == "the same _id at line 4"


def test_string_and_integer_of_the_same_digits_are_one_id(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(record(7) + b"\n" + record("7"))
    with pytest.raises(CollectionError, match="duplicate _id '7'"):
        read(path)


def test_huge_integer_ids_keep_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    huge = 10**40 + 1
    path.write_bytes(b"\n".join([record(huge), record(huge + 1), record(-3)]))
    batches, _ = read(path)
    assert batches[0].ids == [str(huge), str(huge + 1), "-3"]


def test_flaws_are_counted_with_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    lines = [record("0"), record("1", " "), record("2", None, title="\t"), record("3", "", title="a title")]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    batches, flaws = read(path)
    assert batches[0].ids == ["0", "1", "2", "3"]
    assert batches[0].titles == ["", "", "\t", "a title"]
    assert flaws == [
        f"byte order mark (dropped): 1 (first at {path}:1)",
        f"empty text: 2 (first at {path}:2)",
    ]


def test_blank_lines_at_the_end_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(record("0") + b"\r\n" + record("1") + b"\r\n\r\n  \n\n")
    batches, flaws = read(path)
    assert batches[0].ids == ["0", "1"]
    assert flaws == []


def test_empty_file_has_no_batches(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"")
    assert read(path) == ([], [])


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_compressed_files_read_the_same(tmp_path: Path, suffix: str) -> None:
    content = b"\n".join(record(number, "word " * 50) for number in range(3000))
    half = len(content) // 2
    # Two members in one file: what `cat a.gz b.gz` makes is valid, and must not end at the first.
    packed = {
        "": content,
        ".gz": gzip.compress(content[:half]) + gzip.compress(content[half:]),
        ".zst": zstandard.compress(content[:half]) + zstandard.compress(content[half:]),
    }[suffix]
    path = tmp_path / f"corpus.jsonl{suffix}"
    path.write_bytes(packed)
    batches, _ = read(path, batch_rows=1000)
    assert [len(batch.ids) for batch in batches] == [1000, 1000, 1000]
    assert [one_id for batch in batches for one_id in batch.ids] == [str(number) for number in range(3000)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_damaged_archive_is_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    content = b"\n".join(record(number, f"{number * 7919} words") for number in range(5000))
    packed = gzip.compress(content) if suffix == ".gz" else zstandard.compress(content)
    path = tmp_path / f"corpus.jsonl{suffix}"
    path.write_bytes(packed[: len(packed) // 2] if damage == "cut" else b"no archive at all")
    with pytest.raises(CollectionError, match="cut off or damaged") as error:
        read(path)
    assert error.value.where == path


any_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    records=st.lists(st.tuples(any_text.filter(bool), any_text, any_text), unique_by=lambda row: row[0], max_size=30)
)
def test_any_unicode_comes_back(tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.mktemp("unicode") / "corpus.jsonl"
    lines = [
        json.dumps({"_id": one_id, "title": title, "text": text}, ensure_ascii=len(text) % 2 == 0)
        for one_id, title, text in records
    ]
    path.write_bytes("\n".join(lines).encode())
    batches, _ = read(path, batch_rows=4)
    rows = [row for batch in batches for row in zip(batch.ids, batch.titles, batch.texts, strict=True)]
    assert rows == records


@given(batches=st.lists(st.lists(st.integers(0, 40).map(str), min_size=1, max_size=12), max_size=12))
def test_seen_ids_finds_exactly_the_repeated(batches: list[list[str]]) -> None:
    seen, before = SeenIds(), set[str]()
    for batch in batches:
        expected = [at for at, one in enumerate(batch) if one in before or one in batch[:at]]
        assert seen.add(batch) == expected
        before.update(batch)


def test_a_line_longer_than_a_read_block(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"a" * 3_000_000 + b"\n" + b"b" * 10)
    assert [(number, len(line)) for number, line in read_lines(path, Flaws())] == [(1, 3_000_000), (2, 10)]
