"""Relevance judgements: ``qrels/<split>.tsv`` with the columns query-id, corpus-id, score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.lines import decode, read_lines
from ragcun_cache.errors import CollectionError

Qrels = dict[str, dict[str, int]]
"""query id -> passage id -> grade."""

_INTEGER = re.compile(r"-?[0-9]+")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')

HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Judgement:
    """One line of a qrels file. A grade above 0 means relevant."""

    query_id: str
    passage_id: str
    grade: int
    line: int


def _grade(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def quoted(field: str) -> str:
    """Return a field as it is written: in quotes, those inside doubled, where it would be read as quoted otherwise."""
    return '"' + field.replace('"', '""') + '"' if field.startswith('"') else field


def _columns(line: str) -> tuple[str, ...]:
    """Return the fields of a line without the quotes that csv writers put around some; other quotes stay."""
    fields = line.split("\t")
    if '"' in line:
        fields = [found[1].replace('""', '"') if (found := _QUOTED.fullmatch(one)) else one for one in fields]
    return tuple(fields)


def read_judgements(path: Path, flaws: Flaws) -> Iterator[Judgement]:
    """Yield the judgements in file order. The header may be absent, but not wrong; fields may be quoted as in a csv.

    Raises:
        CollectionError: names file and line of a row that has not three columns, of an empty id, of a grade that is
            not an integer, of a wrong header, or of text that is not UTF-8.
    """
    for number, line in read_lines(path, flaws):
        where = f"{path}:{number}"
        columns = _columns(decode(line, where))
        if columns == HEADER and number == 1:
            continue
        if len(columns) != len(HEADER) or not columns[0] or not columns[1]:
            is_trec = number == 1 and len(columns) == len(HEADER) + 1 and _grade(columns[1]) is not None
            raise CollectionError(
                "wrong columns in qrels",
                where=where,
                expected="three columns divided by tabs: query-id, corpus-id, score",
                found=f"{len(columns)} column(s): {columns}",
                fix="a TREC file has a fourth column: cut -f1,3,4" if is_trec else None,
            )
        grade = _grade(columns[2])
        if grade is None:
            header = number == 1
            raise CollectionError(
                "wrong header in qrels" if header else "grade is not an integer",
                where=where,
                expected="query-id, corpus-id, score" if header else "an integer such as 0, 1 or 2",
                found=", ".join(columns) if header else columns[2],
            )
        yield Judgement(columns[0], columns[1], grade, number)


def read_qrels(path: Path, flaws: Flaws) -> Qrels:
    """Read all judgements of a file. A line that repeats an earlier one is noted in ``flaws``.

    Raises:
        CollectionError: as :func:`read_judgements`, and for one pair with two different grades.
    """
    qrels: Qrels = {}
    for judgement in read_judgements(path, flaws):
        grades = qrels.setdefault(judgement.query_id, {})
        known = grades.get(judgement.passage_id)
        if known is None:
            grades[judgement.passage_id] = judgement.grade
        elif known == judgement.grade:
            flaws.note("repeated judgement", path, judgement.line)
        else:
            raise CollectionError(
                f"two grades for query {judgement.query_id!r} and passage {judgement.passage_id!r}",
                where=f"{path}:{judgement.line}",
                expected=f"the grade {known}, given on an earlier line",
                found=judgement.grade,
            )
    return qrels
