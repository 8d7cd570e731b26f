"""A collection: passages, queries and relevance judgements of one folder in BEIR layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.layout import RECORD_FILE, TEXT_FILES, qrels_files
from ragcun_cache.collections.lines import find_file
from ragcun_cache.collections.qrels import Qrels, read_judgements, read_qrels
from ragcun_cache.collections.reader import Texts, read_texts
from ragcun_cache.collections.registry import REGISTRY, test_split_of
from ragcun_cache.errors import CollectionError, unknown_choice
from ragcun_cache.files import sha256_file
from ragcun_cache.role import Role


@dataclass(frozen=True)
class Collection:
    """Passages, queries and qrels below ``folder``; nothing is read before it is asked for.

    ``sample_of`` names the collection that a pair sample was drawn from: scores on a sample are not those of the whole.
    ``ignore_identical_ids`` is BEIR's rule that a passage with the id of the query is dropped from its result.
    ``given_as`` is the folder as the user named it, where no name was given.
    """

    name: str
    folder: Path
    sample_of: str | None = None
    test_split: str = "test"
    ignore_identical_ids: bool = True
    given_as: str | None = None

    @property
    def dataset(self) -> str:
        """What ``--dataset`` finds it by: its name or, where it was found by its folder, that."""
        return self.given_as or self.name

    def path(self, role: Role) -> Path:
        """Return the file of the texts of this role (plain, .gz or .zst).

        Raises:
            CollectionError: there is none.
        """
        found = find_file(self.folder, TEXT_FILES[role])
        if found is None:
            raise CollectionError(
                f"collection {self.name!r} has no {TEXT_FILES[role]}",
                where=self.folder,
                expected=f"{TEXT_FILES[role]} (also .gz or .zst)",
            )
        return found

    def texts(self, role: Role, batch_rows: int = 8192) -> Iterator[Texts]:
        """Yield the texts of a role in file order, checked, in batches of at most ``batch_rows``.

        Flaws that do not stop the work are logged, counted, when the stream ends.

        Raises:
            CollectionError: as :func:`ragcun_cache.collections.reader.read_texts`.
        """
        flaws = Flaws()
        yield from read_texts(self.path(role), batch_rows, flaws)
        flaws.log()

    def content_sha256(self, role: Role) -> str:
        """Return the sha256 of the bytes of the role's file, read anew each time (about a gigabyte a second)."""
        return sha256_file(self.path(role))

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that have qrels, sorted."""
        return tuple(qrels_files(self.folder))

    @property
    def dev_split(self) -> str | None:
        """``dev`` if there is such a split and it is not the one that is tested on (as MS MARCO's is), else None."""
        return "dev" if "dev" in self.splits() and self.test_split != "dev" else None

    def qrels_path(self, split: str) -> Path:
        """Return the qrels file of a split.

        Raises:
            CollectionError: the collection has no such split; the error lists those it has.
        """
        files = qrels_files(self.folder)
        if split not in files:
            raise unknown_choice(
                f"split of {self.name!r}", split, files, where=self.folder / "qrels", error=CollectionError
            )
        return files[split]

    def qrels(self, split: str) -> Qrels:
        """Return query id -> passage id -> grade, with grades of 0 and below as the file has them.

        Raises:
            CollectionError: no such split, or as :func:`ragcun_cache.collections.qrels.read_qrels`.
        """
        flaws = Flaws()
        qrels = read_qrels(self.qrels_path(split), flaws)
        flaws.log()
        return qrels

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Return (query id, passage id) of every judgement with a grade above 0, in file order, each once.

        Raises:
            CollectionError: as :meth:`qrels`.
        """
        judgements = read_judgements(self.qrels_path(split), Flaws())
        return list(dict.fromkeys((one.query_id, one.passage_id) for one in judgements if one.grade > 0))


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``collection.json`` says of how the collection was made, ``{}`` if there is none.

    Raises:
        CollectionError: the file is not a JSON object.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise CollectionError(f"{path.name} is not JSON", where=path, found=str(error)) from error
    if not isinstance(content, dict):
        raise CollectionError(f"{path.name} is not a JSON object", where=path, found=type(content).__name__)
    return content


def check_replaceable(folder: Path, record: Mapping[str, Any], origin: str) -> None:
    """Refuse to make a collection where there is something that is no earlier version of it.

    Args:
        folder: where it is to be made.
        record: what its ``collection.json`` will say.
        origin: the key of the record that an earlier version agrees in, such as ``sample_of``.

    Raises:
        CollectionError: the folder is somebody's own, or cannot be told from it.
    """
    if folder.exists() and (found := read_record(folder).get(origin)) != record[origin]:
        raise CollectionError(
            f"{folder.name!r} is to be made, but something else has that name",
            where=folder,
            expected=f"nothing, or a folder whose {RECORD_FILE} has {origin} {record[origin]!r}",
            found=f"{origin} {found!r}" if found else f"no {origin} in a {RECORD_FILE}",
            fix="rename the folder, then run the same again",
        )


def open_collection(folder: Path, name: str, *, given_as: str | None = None) -> Collection:
    """Return the collection in ``folder``, with the conventions that the registry has for ``name``.

    Raises:
        CollectionError: the folder has no passages or no queries in BEIR layout.
    """
    sample_of = read_record(folder).get("sample_of")
    published = REGISTRY.get(name)
    collection = Collection(
        name,
        folder,
        sample_of=str(sample_of) if sample_of else None,
        test_split=test_split_of(name),
        ignore_identical_ids=published.ignore_identical_ids if published else True,
        given_as=given_as,
    )
    for role in Role:
        collection.path(role)
    return collection
