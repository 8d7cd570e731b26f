"""Finding a collection by name or folder: what is already on this machine first, then the download."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from ragcun_cache.archive import unpack
from ragcun_cache.collections.collection import Collection, open_collection
from ragcun_cache.collections.download import fetch, md5_file
from ragcun_cache.collections.layout import RECORD_FILE, TEXT_FILES, is_collection, lock
from ragcun_cache.collections.pydocs import PYDOCS, make_pydocs
from ragcun_cache.collections.registry import GROUPS, REGISTRY, Archive, archive_of
from ragcun_cache.errors import CollectionError, unknown_choice
from ragcun_cache.files import sha256_file, sync_folder, write_json
from ragcun_cache.home import Home


def search_path(home: Home) -> list[Path]:
    """Return the folders that hold collections: that of ``home``, then those of ``$RAGCUN_COLLECTIONS``."""
    named = os.environ.get("RAGCUN_COLLECTIONS", "").split(os.pathsep)
    return [home.collections, *(Path(folder) for folder in named if folder)]


def collections_on_disk(home: Home) -> dict[str, Path]:
    """Return name -> folder of every collection on the search path, the first folder winning; groups are entered."""
    found: dict[str, Path] = {}
    for parent in search_path(home):
        grouped = [folder for group in GROUPS for folder in parent.glob(f"{group}/*")]
        for folder in sorted([*parent.glob("*"), *grouped]):
            if not folder.name.startswith(".") and is_collection(folder):
                found.setdefault(folder.relative_to(parent).as_posix(), folder)
    return found


def name_of(folder: Path) -> str:
    """Return the name of a folder that was given as such: its own, with its parent's if that is a known group."""
    folder = folder.resolve()
    with_parent = f"{folder.parent.name}/{folder.name}"
    return with_parent if with_parent in REGISTRY else folder.name


def _is_plain_name(text: str) -> bool:
    parts = PurePosixPath(text).parts
    return not text.startswith((".", "/")) and ".." not in parts and 0 < len(parts) <= 2


def _install(archive: Archive, name: str, home: Home) -> None:
    """Download the archive and put the folder in it below ``home.collections``: each collection whole or not at all."""
    top = PurePosixPath(name).parts[0]
    folder = home.collections / top
    with lock(folder):
        if (home.collections / name).is_dir():
            return
        zipped = home.collections / f".{top}.zip"
        # What an earlier attempt left may have been torn since.
        if not zipped.is_file() or md5_file(zipped) != archive.md5:
            fetch(archive, zipped)
        unpacked = home.collections / f".{top}.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)  # What a killed process may have left.
        try:
            unpack(zipped, unpacked)
            inside = unpacked / top
            if not inside.is_dir():
                raise CollectionError("archive has not the folder it should", where=archive.url, expected=f"{top}/")
            record = {"url": archive.url, "md5": archive.md5, "zip_sha256": sha256_file(zipped)}
            write_json(inside / RECORD_FILE, record)
            if folder.is_dir():  # Single collections of the group are there: the others go beside them.
                for path in inside.iterdir():
                    if not (folder / path.name).exists():
                        path.rename(folder / path.name)
                sync_folder(folder)
            else:
                inside.rename(folder)
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        zipped.unlink()


def find_collection(name_or_folder: str, home: Home, *, download: bool = True) -> Collection:
    """Return the collection of that name, or in that folder.

    A name is looked for in ``home.collections``, then in each folder of ``$RAGCUN_COLLECTIONS``; only a registered one
    that is nowhere is downloaded. ``pydocs`` is made on the spot. Anything that starts with ``.`` or ``/``, and
    any other existing folder, is taken as a folder.

    Raises:
        CollectionError: unknown name (all valid ones are named), a group where one collection is wanted, a folder
            without passages or queries, ``download=False`` and not on disk, or a download that failed.
    """
    if _is_plain_name(name_or_folder):
        name = PurePosixPath(name_or_folder).as_posix()
        for parent in search_path(home):
            if is_collection(parent / name):
                return open_collection(parent / name, name)
        if name == PYDOCS:
            return open_collection(make_pydocs(home), PYDOCS)
        if name in GROUPS:
            raise CollectionError(
                f"{name!r} is {len(GROUPS[name])} collections, not one", expected=f"one of {', '.join(GROUPS[name])}"
            )
        if name in REGISTRY:
            return _download(name, home, allowed=download)
    folder = Path(name_or_folder)
    if name_or_folder and folder.is_dir():
        return open_collection(folder, name_of(folder), given_as=name_or_folder)
    raise unknown_choice(
        "collection",
        name_or_folder,
        {*REGISTRY, *collections_on_disk(home), PYDOCS},
        where=os.pathsep.join(str(parent) for parent in search_path(home)),
        error=CollectionError,
    )


def _download(name: str, home: Home, *, allowed: bool) -> Collection:
    archive = archive_of(name)
    if not allowed:
        raise CollectionError(
            f"collection {name!r} is not on this machine",
            where=os.pathsep.join(str(parent) for parent in search_path(home)),
            expected=" and ".join(TEXT_FILES.values()),
            fix=f"ragcun-cache collections fetch {name}",
        )
    _install(archive, name, home)
    return open_collection(home.collections / name, name)
