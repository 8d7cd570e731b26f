"""Which caches can go: those that no collection, head or newer cache needs any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.cache.pair import list_caches, made_at
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import read_manifest
from ragcun_cache.cache.writer import remove_files, writer_lock
from ragcun_cache.collections import collections_on_disk, open_collection
from ragcun_cache.errors import CacheError, CollectionError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


@dataclass(frozen=True)
class Garbage:
    """A cache that could be removed.

    Attributes:
        layout: where it lies.
        manifest: what it is.
        reason: why it could go, in words.
        heads: names of the heads that were trained on it; while there are any, it is only removed by force.
        bytes: on disk.
    """

    layout: CacheLayout
    manifest: Manifest
    reason: str
    heads: tuple[str, ...]
    bytes: int


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # Whoever is writing here has renamed it.
            total += path.stat().st_size if path.is_file() else 0
    return total


def head_references(heads: Path) -> dict[tuple[str, str], list[str]]:
    """Return, for every cache by (fingerprint, content hash), the names of the heads that were trained on it."""
    references: dict[tuple[str, str], list[str]] = {}
    for path in sorted(heads.glob("*/head.json")):
        try:
            caches = json.loads(path.read_text(encoding="utf-8")).get("caches", {})
        except (OSError, ValueError, AttributeError):
            continue
        for role in caches.values() if isinstance(caches, Mapping) else ():
            if isinstance(role, Mapping):
                key = (str(role.get("fingerprint")), str(role.get("content_sha256")))
                references.setdefault(key, []).append(path.parent.name)
    return references


def _contents_on_disk(home: Home) -> Callable[[str, Role], str | None]:
    """Return what gives the content hash that a collection has now; None if no collection is found by its name.

    Folders elsewhere may have the name of a collection and caches under it, but are only known to who encoded them.
    """
    folders = collections_on_disk(home)

    @cache
    def content(name: str, role: Role) -> str | None:
        try:
            return open_collection(folders[name], name).content_sha256(role)
        except (KeyError, CollectionError, OSError):
            return None

    return content


def find_garbage(home: Home, named: Sequence[CacheLayout] = ()) -> list[Garbage]:
    """Return what could be removed.

    Args:
        home: whose caches, and the collections and heads that may need them.
        named: caches that somebody wants to be rid of; without any, those that were never finished, and those that a
            newer one of their collection and spec replaces. The latter only if the collection is found by its name and
            is another version now: several folders may have one name, and each its caches.
    """
    references = head_references(home.heads)
    everything = list_caches(home.caches)
    content = _contents_on_disk(home)
    newest: dict[tuple[str, str], tuple[str, Path]] = {}
    for layout, manifest in everything:
        if manifest.complete:
            key = (manifest.collection, manifest.fingerprint)
            age = (made_at(layout, manifest), layout.folder)
            newest[key] = max(newest.get(key, age), age)
    wanted = {layout.folder.resolve() for layout in named}
    garbage = []
    for layout, manifest in everything:
        if wanted:
            if layout.folder.resolve() not in wanted:
                continue
            reason = "named"
        elif not manifest.complete:
            reason = f"never finished: {manifest.rows:,} of {manifest.total_rows:,} rows"
        elif newest[manifest.collection, manifest.fingerprint][1] != layout.folder and content(
            manifest.collection, manifest.role
        ) not in (None, manifest.content_sha256):
            reason = "replaced by a newer cache of the collection"
        else:
            continue
        used_by = tuple(references.get((manifest.fingerprint, manifest.content_sha256), ()))
        garbage.append(Garbage(layout, manifest, reason, used_by, folder_bytes(layout.folder)))
    return garbage


def remove(garbage: Garbage) -> None:
    """Delete the cache.

    Raises:
        CacheError: another process is writing it, or has since it was found, or a file cannot be removed.
    """
    with writer_lock(garbage.layout):
        # It was listed without its lock, and what decides of others may take minutes.
        if read_manifest(LocalPlace(garbage.layout.folder)) != garbage.manifest:
            raise CacheError("it has changed since it was looked at", where=garbage.layout.folder)
        try:
            remove_files(garbage.layout)
        except OSError as error:
            problem = f"it cannot be removed ({error.strerror})"
            raise CacheError(problem, where=garbage.layout.folder, found=error) from error
