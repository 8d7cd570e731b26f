"""Where the queries of a collection are from: those of a sample are another collection's, titles are its passages'."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.collections.collection import open_collection, read_record
from ragcun_cache.collections.locate import collections_on_disk
from ragcun_cache.home import Home

# The name that a sample of pairs is given; it outlives the sample in the records of heads.
_SAMPLE = re.compile(r"-pairs\d+-seed\d+$")


def sample_name(whole: str, pairs: int, seed: int) -> str:
    """Return the name of the sample of that many pairs that is drawn from ``whole`` with that seed."""
    return f"{whole}-pairs{pairs}-seed{seed}"


@dataclass(frozen=True)
class Origin:
    """``whole`` is what a sample was drawn from, and the collection itself if it is none.

    ``titles_of`` is the collection whose titles are the queries of the whole, None where queries are queries.
    """

    whole: str
    titles_of: str | None


def origin_of(name: str, home: Home, folder: Path | None = None) -> Origin:
    """Return the origin of the collection called ``name``, by its record, or by its name where no record says it.

    Args:
        name: of a collection that need not be on this machine any more.
        home: where collections are looked for.
        folder: that of the collection, if it may lie elsewhere.

    Raises:
        CollectionError: a record cannot be read.

    """
    folders = collections_on_disk(home) | ({} if folder is None else {name: folder})
    while True:
        record = read_record(folders[name]) if name in folders else {}
        whole = str(record.get("sample_of") or _SAMPLE.sub("", name))
        if whole == name:
            titles_of = record.get("titles_of")
            return Origin(whole, origin_of(str(titles_of), home).whole if titles_of else None)
        name = whole


def judged_places(name: str, splits: Iterable[str], home: Home) -> list[tuple[str, str]]:
    """Return (collection, split) of everything that whoever knows the judgements of these splits of ``name`` knows.

    Those are the splits themselves and, if the collection is a sample, those of the whole that they were drawn from:
    its dev queries are from the whole's train where that has no dev split, or is tested on it (``sample_pairs``).

    Raises:
        CollectionError: a record cannot be read.

    """
    splits = list(splits)
    found = [(name, split) for split in splits]
    whole = origin_of(name, home).whole
    if whole != name:
        folder = collections_on_disk(home).get(whole)
        # Of a whole that is not here nothing is tested, so it does not matter where its dev queries are from.
        dev = "dev" if folder is None else open_collection(folder, whole).dev_split or "train"
        found += [(whole, dev if split == "dev" else split) for split in splits]
    return list(dict.fromkeys(found))
