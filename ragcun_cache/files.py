"""Files that are either whole or absent: atomic writes, and checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Numbers of the errors of a full or failing disk, which may name no file."""
_COPY_BLOCK = 1 << 22


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (a rename is only safe once its folder is synced).

    Windows has no such call, and some network file systems refuse it: there it is up to them.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable that something else has written."""
    # Windows syncs only what may be written, elsewhere a file may be read-only.
    with path.open("r+b" if os.name == "nt" else "rb") as handle:
        os.fsync(handle.fileno())


def sync_tree(folder: Path) -> None:
    """Make all files and names in ``folder`` and below it durable, that the folder may be renamed afterwards."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and whatever is missing above it, every new name durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a partial file beside ``path``; on success it is fsynced and renamed to ``path``, on error removed.

    A reader sees the old content or the new, never a mixture, whatever byte a crash comes at.
    """
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give the file ``source`` the name ``target`` too, durably; where it cannot be linked, copy it, atomically."""
    try:
        target.unlink(missing_ok=True)
        target.hardlink_to(source)
    except OSError:
        with source.open("rb") as read, atomic_file(target) as written:
            shutil.copyfileobj(read, written, _COPY_BLOCK)
        return
    # Whoever brought the file here may not have made it durable.
    sync_file(target)
    sync_folder(target.parent)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_file(path) as handle:
        handle.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_file(path) as handle:
        handle.write(text.encode())


def sha256_file(path: Path) -> str:
    """Return the sha256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def canonical_json(content: Any) -> bytes:
    """Return the one byte string that stands for ``content``: sorted keys, no spaces, UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_json(content: Any) -> str:
    """Return the sha256 of ``canonical_json(content)``, in hexadecimal."""
    return hashlib.sha256(canonical_json(content)).hexdigest()
