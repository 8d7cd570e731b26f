"""Titles as queries: pairs to learn from in a collection that nobody has judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragcun_cache.collections.collection import Collection, check_replaceable, open_collection, read_record
from ragcun_cache.collections.layout import RECORD_FILE, is_collection, lock, new_folder, write_qrels, write_texts
from ragcun_cache.collections.reader import Texts
from ragcun_cache.errors import CollectionError
from ragcun_cache.files import write_json
from ragcun_cache.home import Home
from ragcun_cache.role import Role

_SPLIT = "train"
# A passage with the id of the query would be dropped from what the query finds.
_PREFIX = "title-"


def title_pairs(collection: Collection, home: Home, *, whole: bool = False) -> Collection:
    """Return ``<name>-titles``: every title a train query, whose passage is the text below it; no judgement is read.

    The passages lose their titles, so that a pair is not found by the words it shares. With ``whole`` they keep them
    (``<name>-titles-whole``): then their vectors are those of the collection's own cache, and only titles are encoded.
    A passage without a title or without a text stays, and is no pair. Written below ``home.collections`` once, and
    again only if the passages have changed.

    Raises:
        CollectionError: no passage has a title, the collection cannot be read, or something else has that name.
    """
    name = f"{collection.name}-titles{'-whole' if whole else ''}"
    folder = home.collections / name
    source = collection.content_sha256(Role.PASSAGE)
    record = {"titles_of": collection.name, "whole": whole, "sources": {Role.PASSAGE.value: source}}
    with lock(folder):
        if not (is_collection(folder) and read_record(folder) == record):
            check_replaceable(folder, record, "titles_of")
            with new_folder(folder) as partial:
                _write(partial, collection, whole)
                write_json(partial / RECORD_FILE, record)
    return open_collection(folder, name)


def _write(partial: Path, collection: Collection, whole: bool) -> None:
    paired: list[str] = []

    def titles() -> Iterator[Texts]:
        for batch in collection.texts(Role.PASSAGE):
            titled = list(_titled(batch))
            ids = [one_id for one_id, _ in titled]
            paired.extend(ids)
            yield Texts([f"{_PREFIX}{one}" for one in ids], [""] * len(ids), [title for _, title in titled])

    write_texts(partial, Role.QUERY, titles())
    if not paired:
        raise CollectionError(
            f"no passage of {collection.name!r} has a title and a text",
            where=collection.path(Role.PASSAGE),
            expected='records with a "title"',
        )
    write_qrels(partial, _SPLIT, ((f"{_PREFIX}{one}", one, 1) for one in paired))
    passages = collection.texts(Role.PASSAGE)
    write_texts(partial, Role.PASSAGE, passages if whole else map(_bodies, passages))


def _titled(batch: Texts) -> Iterator[tuple[str, str]]:
    """Yield (passage id, title) of the passages that make a pair."""
    for one_id, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True):
        if title.strip() and text.strip():
            yield one_id, title.strip()


def _bodies(batch: Texts) -> Texts:
    return Texts(batch.ids, [""] * len(batch.ids), batch.texts)
