"""Copying a finished cache to any place that fsspec reaches, so that nobody ever reads a half or a mixture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cache.cache.convert import check_file
from ragcun_cache.cache.layout import MANIFEST_COPY_NAME, MANIFEST_NAME, SHARD_PREFIXES, CacheLayout
from ragcun_cache.cache.manifest import FileRecord, Manifest
from ragcun_cache.cache.place import RemotePlace, open_file_system, remote_errors
from ragcun_cache.cache.reader import EmbeddingCache
from ragcun_cache.errors import CacheError
from ragcun_cache.progress import progress

# The manifest while its files are on their way. Readers do not know this name.
_UNDER_WAY = "manifest.publishing.json"


@dataclass(frozen=True)
class PublishReport:
    """What publishing did.

    Attributes:
        url: where the cache is now.
        sent: number of shard files that were sent.
        kept: number of shard files that were there already.
        sent_bytes: size of the former.
    """

    url: str
    sent: int
    kept: int
    sent_bytes: int


def publish(folder: Path, url: str) -> PublishReport:
    """Copy a complete cache to ``url``, which becomes its folder, and return what was sent.

    The shards go first and the manifest last, after the sizes of all files there were compared, so a reader finds all
    of the cache or none. Every file is checked against its sha256 before it is sent. Interrupted, the same call goes
    on; a file is taken to be there only if a manifest beside it says that it is the same one. Another cache that was
    published to ``url`` is withdrawn first: its readers get an error, never a mixture.

    Raises:
        CacheError: the cache is missing, damaged or not complete, or the place cannot be written.
    """
    manifest = EmbeddingCache(folder).manifest
    layout = CacheLayout(folder)
    ours = [file for shard in manifest.shards for file in shard.files]
    place = RemotePlace(url)
    files, root = open_file_system(url)
    with remote_errors("the cache could not be published; run the same command again, it goes on from here", url):
        if root.startswith("/"):
            # Object stores have no folders, and would make a bucket of a mistyped name.
            files.makedirs(root, exist_ok=True)
        kept = _keep(manifest, ours, place, files, root)
        missing = [file for file in ours if file.name not in kept]
        sent_bytes = sum(file.bytes for file in missing)
        with progress(f"publish {folder.name}", "bytes", sent_bytes) as advance:
            for file in missing:
                check_file(folder, file)
                files.put_file(str(folder / file.name), f"{root}/{file.name}")
                advance(file.bytes)
        _compare_sizes(ours, place)
        for path in (layout.manifest, layout.manifest_copy):
            files.pipe_file(f"{root}/{path.name}", manifest.to_bytes())
        _remove(files, root, [_UNDER_WAY], place)
    return PublishReport(str(place.address), len(missing), len(kept), sent_bytes)


def _keep(manifest: Manifest, ours: list[FileRecord], place: RemotePlace, files: Any, root: str) -> set[str]:
    """Return the files that are there already, and remove what is there of another cache.

    Sizes alone do not tell two caches apart, as shards of equal shape have equal sizes; so the manifest goes ahead of
    its files under another name, once no file of another one is left.
    """
    sizes = place.sizes()
    under_way, published = _known(place, sizes, _UNDER_WAY), _known(place, sizes, MANIFEST_NAME)
    known = under_way or published
    recorded = {file.name: file for shard in known.shards for file in shard.files} if known else {}
    kept = {file.name for file in ours if recorded.get(file.name) == file and sizes.get(file.name) == file.bytes}
    if known != manifest:
        stale = [name for name in sizes if name.startswith(SHARD_PREFIXES) and name not in kept]
        _remove(files, root, [MANIFEST_COPY_NAME, MANIFEST_NAME, *stale], place)
    if published != manifest and under_way != manifest:
        files.pipe_file(f"{root}/{_UNDER_WAY}", manifest.to_bytes())
    return kept


def _known(place: RemotePlace, sizes: Mapping[str, int | None], name: str) -> Manifest | None:
    if name not in sizes:
        return None
    try:
        return Manifest.parse(place.read(name), f"{place.address}/{name}")
    except CacheError:
        return None  # A torn one says nothing of its files.


def _compare_sizes(ours: list[FileRecord], place: RemotePlace) -> None:
    sizes = place.sizes()
    for file in ours:
        if sizes.get(file.name) != file.bytes:
            raise CacheError(
                "a file did not arrive whole",
                where=f"{place.address}/{file.name}",
                expected=f"{file.bytes} bytes",
                found=f"{sizes[file.name]} bytes" if file.name in sizes else "no file",
                fix="run the same command again",
            )


def _remove(files: Any, root: str, names: list[str], place: RemotePlace) -> None:
    there = place.sizes()
    for name in names:
        if name in there:
            files.rm_file(f"{root}/{name}")
