"""The one way that vectors enter a cache: shard after shard, each durable before it is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ragcun_cache.cache.layout import SHARD_PREFIXES, CacheLayout
from ragcun_cache.cache.manifest import Manifest, ShardRecord, spec_differences
from ragcun_cache.cache.part import Part
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import EmbeddingCache, read_manifest
from ragcun_cache.cache.shard import Shard
from ragcun_cache.errors import CacheError
from ragcun_cache.files import link_or_copy, make_folder


@contextmanager
def writer_lock(layout: CacheLayout) -> Iterator[None]:
    """Hold the lock of the one process that may write. The kernel drops it when its owner dies.

    The folder of a cache that is removed meanwhile goes with its lock.

    Raises:
        CacheError: another process has it, or the folder cannot be written.
    """
    folder = layout.folder
    lock = FileLock(layout.lock)
    try:
        make_folder(folder)
        lock.acquire(timeout=0)
    except Timeout:
        raise CacheError(
            "another process is writing this cache", where=folder, fix="wait for it to end, then run this again"
        ) from None
    except OSError as error:
        raise CacheError("the cache folder cannot be written", where=folder, found=error) from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # It is seldom empty. NFS keeps a name in it for a removed file that is still open.
            folder.rmdir()


def remove_files(layout: CacheLayout) -> None:
    """Remove all that is in the folder of a cache. The caller has the lock, and with it the folder goes.

    The manifests go first, the copy before: what is left after a crash is no cache, not a damaged one.
    """
    layout.manifest_copy.unlink(missing_ok=True)
    layout.manifest.unlink()
    for path in set(layout.folder.iterdir()) - {layout.lock}:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # Windows and SMB may not let go of what is open.
        layout.lock.unlink()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a CacheError: every write is atomic, so what was recorded before still stands."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            "the cache could not be written; all rows recorded so far are safe",
            where=folder,
            found=error,
            fix="make room or mend the folder, then run the same command again: it goes on from here",
        ) from error


def sweep(layout: CacheLayout, manifest: Manifest) -> None:
    """Remove what a crash left: partial files, and shards that ``manifest`` does not name. The caller has the lock."""
    recorded = {file.name for shard in manifest.shards for file in shard.files}
    for path in layout.folder.iterdir():
        ours = path.name.startswith(SHARD_PREFIXES) or ".partial-" in path.name
        if ours and path.name not in recorded:
            path.unlink()


def bring_copy_along(layout: CacheLayout, found: Manifest) -> None:
    """Write the copy that a crash left behind. A copy that is ahead names shards that would be swept: refuse."""
    path = layout.manifest_copy
    try:
        copy = Manifest.parse(path.read_bytes(), path)
    except (FileNotFoundError, CacheError):
        copy = None
    if copy is not None and (copy.rows, copy.complete) > (found.rows, found.complete):
        raise CacheError(
            "the manifest is older than its copy",
            where=layout.manifest,
            expected=f"{copy.rows} rows",
            found=f"{found.rows} rows",
            fix=f"ragcun-cache caches verify --repair {layout.folder}",
        )
    if copy != found:
        found.write(layout)


class CacheWriter:
    """Appends shards to one cache, holding its lock. Use as a context manager.

    A crash at any moment loses at most the shard in progress: files that the manifest does not name are swept when
    the next writer opens the cache.
    """

    def __init__(self, layout: CacheLayout, asked: Manifest, part: Part | None = None) -> None:
        """Prepare to create or resume the cache that ``asked`` (a manifest without shards) describes, or a part of it.

        The manifest of a part is that of the whole cache with some of its shards, under their final names, and never
        complete. What ``asked`` has under ``attempts`` in its provenance is added to that of a cache that is resumed;
        all else that the cache says of itself stays.
        """
        self._layout = layout
        self._part = part
        if part is not None:
            asked = asked.model_copy(update={"provenance": {**asked.provenance, "part": str(part)}})
        self._asked = asked
        self._lock = writer_lock(layout)
        self.manifest = asked

    def __enter__(self) -> CacheWriter:
        """Take the lock, compare with what is there, sweep unfinished files.

        Raises:
            CacheError: another process writes here, the cache is of another spec or its manifest is damaged, or the
                folder cannot be written.
        """
        self._lock.__enter__()
        try:
            with _disk_errors(self._layout.folder):
                if self._layout.manifest.exists() or self._layout.manifest_copy.exists():
                    found = read_manifest(LocalPlace(self._layout.folder))
                    self._check_same(found)
                    # A manifest that names files which are not there is no ground to sweep others on.
                    EmbeddingCache(self._layout.folder, allow_incomplete=True)
                    bring_copy_along(self._layout, found)
                    self.manifest = self._resumed(found)
                else:
                    self._asked.write(self._layout)
                sweep(self._layout, self.manifest)
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    @property
    def place(self) -> LocalPlace:
        """The folder, for reading what is recorded already."""
        return LocalPlace(self._layout.folder)

    @property
    def shards(self) -> range:
        """Numbers of the shards that are to be written here, those that are there already included."""
        rows = (self.manifest.total_rows, self.manifest.shard_rows)
        return (self._part or Part(1, 1)).shards(*rows)

    @property
    def missing_rows(self) -> int:
        """Rows that are still to be written here."""
        manifest, end = self.manifest, self.shards.stop * self.manifest.shard_rows
        start = self.shards.start * manifest.shard_rows + manifest.rows
        return max(min(end, manifest.total_rows) - start, 0)

    def _resumed(self, found: Manifest) -> Manifest:
        """Return ``found`` with the attempt that begins now beside those that wrote what is there.

        It is recorded with the first shard that it writes.
        """
        mine = self._asked.provenance.get("attempts", [])
        if found.finished or not mine:
            return found
        attempts = [*found.provenance.get("attempts", []), *({**one, "rows_before": found.rows} for one in mine)]
        return found.model_copy(update={"provenance": {**found.provenance, "attempts": attempts}})

    def _check_same(self, found: Manifest) -> None:
        asked = self._asked
        identity = ("collection", "role", "content_sha256", "dim", "dtype", "total_rows")
        differences = spec_differences(found.spec, asked.spec) + [
            f"{name}: {getattr(found, name)!r} → {getattr(asked, name)!r}"
            for name in identity
            if getattr(found, name) != getattr(asked, name)
        ]
        if differences:
            raise CacheError(
                "the cache is of another spec than asked for (found → asked)",
                where=self._layout.folder,
                found="; ".join(differences),
            )

    def check_recorded(self, index: int, ids: list[str], text_sha256: list[bytes]) -> None:
        """Compare a shard of an earlier attempt with the texts as they are: a file may change and change back.

        Args:
            index: which of the shards that are here.
            ids: identifiers of its rows, as the collection has them.
            text_sha256: of their texts, 32 bytes each.

        Raises:
            CacheError: the shard is of other texts, or cannot be read.
        """
        folder, number = self._layout.folder, self.shards.start + index
        rows = EmbeddingCache.unchecked(self.place, self.manifest).rows_table(index, ["id", "text_sha256"])
        if rows.column("id").to_pylist() != ids or rows.column("text_sha256").to_pylist() != text_sha256:
            remove = f"remove {folder}" if self._part else f"ragcun-cache caches gc --delete {folder}"
            raise CacheError(
                f"shard {number} is of other texts than the collection has now",
                where=folder,
                fix=f"{remove}, then run the same again",
            )

    def append(self, shard: Shard) -> None:
        """Write ``shard`` after the last one: both files durable first, then the manifest that names them.

        Raises:
            CacheError: wrong dim, dtype or number of rows, a cache that is complete, or a disk that is full or failing.
        """
        manifest = self.manifest
        index = self.shards.start + len(manifest.shards)
        expected_rows = min(manifest.shard_rows, manifest.total_rows - index * manifest.shard_rows)
        expected = (expected_rows, manifest.dim, np.dtype(manifest.dtype).name)
        found = (*shard.vectors_nd.shape, shard.vectors_nd.dtype.name)
        if not self.missing_rows or found != expected:
            raise CacheError(
                "the shard does not fit the cache",
                where=self._layout.folder,
                expected=f"rows, dim, dtype {expected}" if self.missing_rows else "no more rows, all are there",
                found=found,
            )
        with _disk_errors(self._layout.folder):
            self._record(shard.write(self._layout, index, manifest.format))

    def adopt(self, record: ShardRecord, folder: Path) -> None:
        """Take the next shard from ``folder``, where its files lie under their final names, as links or copies.

        Raises:
            CacheError: the disk is full or failing.
        """
        with _disk_errors(self._layout.folder):
            for file in record.files:
                link_or_copy(folder / file.name, self._layout.folder / file.name)
            self._record(record)

    def _record(self, record: ShardRecord) -> None:
        manifest = self.manifest.model_copy(update={"shards": (*self.manifest.shards, record)})
        manifest.write(self._layout)
        self.manifest = manifest

    def finish(self, **provenance: Any) -> Manifest:
        """Mark the cache complete, or the part finished, keeping ``provenance`` (seconds) with the last attempt.

        Whoever calls has compared what was there before with the collection as it is.

        Raises:
            CacheError: rows are missing, or the disk is full or failing.
        """
        manifest = self.manifest
        if self.missing_rows:
            raise CacheError(
                "the cache cannot be finished, rows are missing",
                where=self._layout.folder,
                expected=manifest.rows + self.missing_rows,
                found=manifest.rows,
            )
        if not manifest.finished:
            told = dict(manifest.provenance)
            if attempts := told.get("attempts"):
                told["attempts"] = [*attempts[:-1], {**attempts[-1], **provenance}]
            else:
                told |= provenance
            if self._part is not None:
                told["finished"] = True
            manifest = manifest.model_copy(update={"complete": self._part is None, "provenance": told})
            with _disk_errors(self._layout.folder):
                manifest.write(self._layout)
            self.manifest = manifest
        return manifest
