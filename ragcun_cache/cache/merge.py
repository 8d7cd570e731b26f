"""Putting the parts of a cache together that several machines made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.cache.command import encode_command
from ragcun_cache.cache.convert import check_file
from ragcun_cache.cache.layout import PARTS, CacheLayout
from ragcun_cache.cache.manifest import Manifest, spec_differences
from ragcun_cache.cache.pair import folder_pattern, made_at
from ragcun_cache.cache.part import Part, shard_count
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import EmbeddingCache, read_manifest
from ragcun_cache.cache.writer import CacheWriter, bring_copy_along, remove_files, writer_lock
from ragcun_cache.errors import CacheError
from ragcun_cache.progress import progress

_NAME = re.compile(r"(?P<whole>.+)\.part-(?P<number>\d+)-of-(?P<of>\d+)")
_IDENTITY = ("collection", "role", "content_sha256", "dim", "dtype", "format", "shard_rows", "total_rows")


@dataclass(frozen=True)
class Split:
    """The parts of one cache that are there.

    Attributes:
        whole: where the cache that they make will lie.
        of: how many parts there are to be.
        parts: those that are there, by number.
    """

    whole: CacheLayout
    of: int
    parts: Mapping[int, CacheLayout]


def find_splits(caches: Path, collection: str) -> list[Split]:
    """Return what there is of parts of the collection's caches, by path."""
    found: dict[tuple[Path, int], dict[int, CacheLayout]] = {}
    for path in sorted(caches.glob(f"{folder_pattern(collection)}/parts/*/manifest.json")):
        if name := _NAME.fullmatch(path.parent.name):
            key = (path.parents[2] / name["whole"], int(name["of"]))
            found.setdefault(key, {})[int(name["number"])] = CacheLayout(path.parent)
    return [Split(CacheLayout(folder), of, parts) for (folder, of), parts in found.items()]


def merge(split: Split, *, keep: bool = False, dataset: str | None = None) -> Manifest:
    """Make one cache of all parts and return its manifest; the files are those that one encode would have written.

    Every file is compared with its checksum and then linked, or copied where it cannot be linked. A shard counts once
    the manifest names it, so a merge that was interrupted goes on when it is run again. The parts are removed at the
    end.

    Args:
        split: the parts.
        keep: leave the parts where they are.
        dataset: what ``encode`` finds the collection by, for messages; None: the name that its caches carry.

    Raises:
        CacheError: a part is missing, unfinished, damaged, still being written, or of another spec, collection or
            shard size than the others; or another cache has been begun in the same place.
    """
    with ExitStack() as locks:
        # The folders of removed parts go with their locks, and then that of them all.
        locks.callback(_remove_if_empty, split.whole.folder.parent / PARTS)
        for layout in split.parts.values():
            locks.enter_context(writer_lock(layout))
        if split.whole.manifest.exists() and (found := read_manifest(LocalPlace(split.whole.folder))).complete:
            # An earlier merge was interrupted when it was all but done, or somebody encoded the whole, or copied it
            # here: of a copy that was cut off the manifest may be all that there is.
            with writer_lock(split.whole):
                EmbeddingCache(split.whole.folder)
                bring_copy_along(split.whole, found)
            return found if keep else _without_parts(split, found)
        manifests = {number: read_manifest(LocalPlace(layout.folder)) for number, layout in split.parts.items()}
        first = next(iter(manifests.values()))
        _check_complete(split, manifests, first, dataset or first.collection)
        provenance = {str(Part(number, split.of)): one.provenance for number, one in manifests.items()}
        created = min(made_at(split.parts[number], one) for number, one in manifests.items())
        asked = first.model_copy(update={"shards": (), "provenance": {"created": created, "parts": provenance}})
        with CacheWriter(split.whole, asked) as writer:
            _check_begun(split, manifests, writer.manifest)
            missing = len(writer.shards) - len(writer.manifest.shards)
            with progress(f"merge {split.whole.folder.name}", "shards", missing) as advance:
                for number, index in _shards(split, first):
                    if index < len(writer.manifest.shards):
                        continue
                    folder = split.parts[number].folder
                    record = manifests[number].shards[index - _range(split, number, first).start]
                    for file in (record.vectors, record.metadata):
                        check_file(folder, file)
                    writer.adopt(record, folder)
                    advance(1)
            merged = writer.finish()
        return merged if keep else _without_parts(split, merged)


def _range(split: Split, number: int, manifest: Manifest) -> range:
    return Part(number, split.of).shards(manifest.total_rows, manifest.shard_rows)


def _shards(split: Split, manifest: Manifest) -> Iterator[tuple[int, int]]:
    """Yield the number of the part and the number of the shard, for every shard of the whole."""
    for number in range(1, split.of + 1):
        for index in _range(split, number, manifest):
            yield number, index


def _check_complete(split: Split, manifests: Mapping[int, Manifest], first: Manifest, dataset: str) -> None:
    where = split.whole.folder.parent / "parts"
    for number, manifest in manifests.items():
        folder = split.parts[number].folder
        differences = spec_differences(first.spec, manifest.spec) + [
            f"{name}: {getattr(first, name)!r} → {getattr(manifest, name)!r}"
            for name in _IDENTITY
            if getattr(first, name) != getattr(manifest, name)
        ]
        if differences:
            raise CacheError(
                "the parts are not of one cache (first part → this part)", where=folder, found="; ".join(differences)
            )
        part, wanted = Part(number, split.of), _range(split, number, first)
        names = [split.whole.rows(index).name for index in wanted[: len(manifest.shards)]]
        if manifest.provenance.get("part") != str(part) or [one.metadata.name for one in manifest.shards] != names:
            raise CacheError(
                "this part does not hold the shards that its name says", where=folder, expected=f"part {part}"
            )
        if len(manifest.shards) < len(wanted) or not manifest.finished:
            raise CacheError(
                f"part {part} is not finished",
                where=folder,
                expected=f"{len(wanted)} shards",
                found=f"{len(manifest.shards)}, not yet compared with the collection",
                fix=f"{encode_command(dataset, [manifest], part=str(part))}, with the same settings",
            )
        EmbeddingCache(folder, allow_incomplete=True)
    needed = {number for number, _ in _shards(split, first)}
    if lacking := sorted(needed - manifests.keys()):
        raise CacheError(
            f"parts of {split.whole.folder.name} are missing",
            where=where,
            expected=f"{split.of} parts",
            found=f"no part {', '.join(str(Part(number, split.of)) for number in lacking)}",
            fix="encode them, or copy their folders here",
        )


def _check_begun(split: Split, manifests: Mapping[int, Manifest], begun: Manifest) -> None:
    """Compare what is in the whole already with the parts: it may be an encode that is something else."""
    records = [record for number in sorted(manifests) for record in manifests[number].shards]
    same_shape = shard_count(begun.total_rows, begun.shard_rows) == len(records)
    if not same_shape or list(begun.shards) != records[: len(begun.shards)]:
        raise CacheError(
            "the cache that the parts would make is there already, with other shards",
            where=split.whole.folder,
            fix=f"keep it, or remove it first: ragcun-cache caches gc --delete {split.whole.folder}",
        )


def _without_parts(split: Split, merged: Manifest) -> Manifest:
    """Remove the parts, which are of no more use; return the manifest of the whole."""
    for layout in split.parts.values():
        remove_files(layout)
    return merged


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
