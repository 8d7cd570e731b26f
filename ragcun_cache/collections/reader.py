"""corpus.jsonl and queries.jsonl, read as a stream of checked batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.lines import decode, read_lines
from ragcun_cache.collections.seen import SeenIds
from ragcun_cache.errors import CollectionError


@dataclass(frozen=True)
class Texts:
    """One batch of records in file order; the three lists have the same length. A title that is absent is ``""``."""

    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        decode(line, where)
        raise CollectionError(
            "line is not JSON", where=where, expected="one JSON object a line", found=str(error)
        ) from error
    if not isinstance(record, dict):
        raise CollectionError(
            "line is not a JSON object",
            where=where,
            expected='an object such as {"_id": "1", "title": "", "text": "..."}',
            found=type(record).__name__,
        )
    return record


def _id(record: dict[str, Any], line: bytes, where: str) -> str:
    if "_id" not in record:
        raise CollectionError("record has no _id", where=where, expected="_id", found=f"keys {sorted(record)}")
    found = record["_id"]
    if isinstance(found, float):
        # orjson turns an integer beyond 64 bits into a float; the standard parser keeps all its digits.
        found = json.loads(line)["_id"]
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found:
        raise CollectionError(
            "_id is not a string or an integer",
            where=where,
            expected="a string that is not empty, or an integer",
            found=repr(found),
        )
    return found


def _string(record: dict[str, Any], key: str, where: str) -> str:
    found = record.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise CollectionError(f"{key} is not a string", where=where, expected="a string or null", found=repr(found))
    return found


def _line_of_id(path: Path, wanted: str, before: int) -> int | None:
    """Return the first line, earlier than ``before``, that holds the id."""
    for number, line in read_lines(path, Flaws()):
        if number >= before:
            return None
        if _id(_record(line, ""), line, "") == wanted:
            return number
    return None


def _refuse_duplicates(path: Path, seen: SeenIds, batch: Texts, lines: list[int]) -> None:
    for position in seen.add(batch.ids):
        first = _line_of_id(path, batch.ids[position], lines[position])
        if first is not None:
            raise CollectionError(
                f"duplicate _id {batch.ids[position]!r}",
                where=f"{path}:{lines[position]}",
                expected="every _id once",
                found=f"the same _id at line {first}",
            )


def read_texts(path: Path, batch_rows: int, flaws: Flaws) -> Iterator[Texts]:
    """Yield the records of a BEIR ``.jsonl`` file (plain, .gz or .zst) in batches of at most ``batch_rows``.

    Integer ids become strings. A record whose title and text are both blank is kept and noted in ``flaws``.

    Raises:
        CollectionError: names file and line of a line that is not a JSON object or not UTF-8, of an ``_id`` that is
            missing, of another type or a duplicate (then both lines), or of a title or text that is not a string.
    """
    seen = SeenIds()
    batch, lines = Texts(), list[int]()
    for number, line in read_lines(path, flaws):
        where = f"{path}:{number}"
        record = _record(line, where)
        if "text" not in record:
            raise CollectionError("record has no text", where=where, expected="text", found=f"keys {sorted(record)}")
        title, text = _string(record, "title", where), _string(record, "text", where)
        if not title.strip() and not text.strip():
            flaws.note("empty text", path, number)
        batch.ids.append(_id(record, line, where))
        batch.titles.append(title)
        batch.texts.append(text)
        lines.append(number)
        if len(lines) == batch_rows:
            _refuse_duplicates(path, seen, batch, lines)
            yield batch
            batch, lines = Texts(), []
    if lines:
        _refuse_duplicates(path, seen, batch, lines)
        yield batch
