"""Reading relevance judgements."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.layout import qrels_files, write_qrels
from ragcun_cache.collections.qrels import read_judgements, read_qrels
from ragcun_cache.errors import CollectionError

HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize("header", [HEADER, ""])
def test_header_is_optional(tmp_path: Path, header: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(f"{header}q1\tp1\t2\nq1\tp2\t0\nq2\tp1\t-1\n\n")
    assert read_qrels(path, Flaws()) == {"q1": {"p1": 2, "p2": 0}, "q2": {"p1": -1}}


@pytest.mark.parametrize(
    ("content", "line", "problem", "detail"),
    [
        (f"{HEADER}q1\tp1\n", 2, "wrong columns in qrels", "2 column(s)"),
        (f"{HEADER}q1 p1 1\n", 2, "wrong columns in qrels", "1 column(s)"),
        ("q1\t0\tp1\t1\n", 1, "wrong columns in qrels", "cut -f1,3,4"),
        (f'{HEADER}q1\t""\t1\n', 2, "wrong columns in qrels", ""),
        (f"{HEADER}\tp1\t1\n", 2, "wrong columns in qrels", ""),
        ("qid\tpid\tgrade\nq1\tp1\t1\n", 1, "wrong header in qrels", "qid, pid, grade"),
        (f"{HEADER}q1\tp1\t1\nq1\tp2\t0.5\n", 3, "grade is not an integer", "0.5"),
        (f"{HEADER}q1\tp1\tyes\n", 2, "grade is not an integer", "yes"),
        (f"{HEADER}q1\tp1\t1\nq1\tp1\t2\n", 3, "two grades for query 'q1' and passage 'p1'", "the grade 1"),
        (f"{HEADER}\nq1\tp1\t1\n", 2, "blank line between records", ""),
    ],
)
def test_bad_row_is_refused_with_file_and_line(
    tmp_path: Path, content: str, line: int, problem: str, detail: str
) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(content)
    with pytest.raises(CollectionError) as error:
        read_qrels(path, Flaws())
    assert error.value.problem == problem
    assert str(error.value.where) == f"{path}:{line}"
    assert detail in str(error.value)


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore\titeration\n", HEADER])
def test_no_column_of_ids_is_cut_off_where_a_fourth_one_is_no_trec_files(tmp_path: Path, header: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(f"{header}1\t25\t1\t0\n")
    with pytest.raises(CollectionError, match="wrong columns in qrels") as error:
        read_qrels(path, Flaws())
    assert error.value.fix is None


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_a_csv_writer_quotes_is_read_without_its_quotes(tmp_path: Path, quoting: Literal[0, 1]) -> None:
    path, rows = tmp_path / "test.tsv", [("q1", '5" floppy', 1), ('"', '"so" he said', 0), ("q2", 'a ""', 2)]
    with path.open("w", newline="") as handle:
        csv.writer(handle, delimiter="\t", quoting=quoting).writerows([HEADER.split(), *rows])
    assert [(one.query_id, one.passage_id, one.grade) for one in read_judgements(path, Flaws())] == rows
    path.write_text('q1\t5" floppy\t1\nq1\t"so" he "said"\t1\nq1\t"\t1\n')
    assert read_qrels(path, Flaws()) == {"q1": {'5" floppy': 1, '"so" he "said"': 1, '"': 1}}


def test_csv_readers_find_the_ids_that_were_written(tmp_path: Path) -> None:
    rows = [("q", '"so"', 1), ("q", '5" floppy', 2), ('"', "p", 0)]
    write_qrels(tmp_path, "test", rows)
    with (tmp_path / "qrels" / "test.tsv").open(newline="") as handle:
        found = list(csv.reader(handle, delimiter="\t"))[1:]
    assert [(query, passage, int(grade)) for query, passage, grade in found] == rows


def test_invalid_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(HEADER.encode() + b"q\xff\tp\t1\n")
    with pytest.raises(CollectionError, match="invalid UTF-8"):
        read_qrels(path, Flaws())


def test_repeated_judgement_and_byte_order_mark_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(f"\ufeff{HEADER}q1\tp1\t1\nq1\tp1\t1\n", encoding="utf-8")
    flaws = Flaws()
    assert read_qrels(path, flaws) == {"q1": {"p1": 1}}
    assert [(flaw.kind, flaw.first_line, flaw.count) for flaw in flaws.all()] == [
        ("byte order mark (dropped)", 1, 1),
        ("repeated judgement", 3, 1),
    ]


def test_splits_are_the_files(tmp_path: Path) -> None:
    write_qrels(tmp_path, "train", [("q", "p", 1)])
    (tmp_path / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"q\tp\t3\n"))
    files = qrels_files(tmp_path)
    assert list(files) == ["test", "train"]
    assert read_qrels(files["test"], Flaws()) == {"q": {"p": 3}}


an_id = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n"), min_size=1)


@given(rows=st.lists(st.tuples(an_id, an_id, st.integers(-3, 9)), unique_by=lambda row: row[:2], max_size=20))
def test_any_unicode_id_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]) -> None:
    folder = tmp_path_factory.mktemp("qrels")
    write_qrels(folder, "test", rows)
    read = [(one.query_id, one.passage_id, one.grade) for one in read_judgements(folder / "qrels/test.tsv", Flaws())]
    assert read == rows
