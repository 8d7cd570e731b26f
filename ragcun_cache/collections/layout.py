"""The BEIR layout of a folder: where corpus.jsonl, queries.jsonl and qrels/<split>.tsv lie, and how to write them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from filelock import FileLock

from ragcun_cache.collections.lines import SUFFIXES, find_file
from ragcun_cache.collections.qrels import HEADER, quoted
from ragcun_cache.collections.reader import Texts
from ragcun_cache.files import atomic_file, sync_folder
from ragcun_cache.role import Role

TEXT_FILES = {Role.PASSAGE: "corpus.jsonl", Role.QUERY: "queries.jsonl"}
RECORD_FILE = "collection.json"


def is_collection(folder: Path) -> bool:
    """Whether the folder has passages and queries in BEIR layout."""
    return all(find_file(folder, name) for name in TEXT_FILES.values())


def qrels_files(folder: Path) -> dict[str, Path]:
    """Return split name -> file, sorted by name, for every ``qrels/<split>.tsv`` (plain, .gz or .zst)."""
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in (folder / "qrels").glob(f"*.tsv{suffix}"):
            found.setdefault(path.name.removesuffix(f".tsv{suffix}"), path)
    return dict(sorted(found.items()))


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the collection in ``folder``, so that two processes never make the same one at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``; on success it takes its place, on error it is removed.

    A collection is therefore whole or absent. The caller holds the :func:`lock`, and knows that ``folder`` is its own.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    for stale in (partial, old):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_texts(folder: Path, role: Role, batches: Iterable[Texts]) -> None:
    """Write the records as the role's ``.jsonl`` file. Only passages have a title (maybe ``""``)."""
    with atomic_file(folder / TEXT_FILES[role]) as handle:
        for batch in batches:
            for one_id, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True):
                record = {"_id": one_id, "text": text} | ({"title": title} if role is Role.PASSAGE else {})
                handle.write(orjson.dumps(record) + b"\n")


def write_qrels(folder: Path, split: str, judgements: Iterable[tuple[str, str, int]]) -> None:
    """Write ``qrels/<split>.tsv`` from (query id, passage id, grade) rows; no id may hold a tab or a line end."""
    with atomic_file(folder / "qrels" / f"{split}.tsv") as handle:
        for row in (HEADER, *judgements):
            handle.write("\t".join(quoted(str(one)) for one in row).encode() + b"\n")
