"""Zip archives, unpacked inside their own folder only."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ragcun_cache.errors import ArchiveError
from ragcun_cache.files import sync_tree
from ragcun_cache.progress import progress

_BLOCK_BYTES = 1 << 20
_MAX_EXPANSION = 100
"""Text deflates to a third or a tenth; an archive that claims a hundredfold is not what it says."""


def _refuse_unsafe(archive_path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link:
            raise ArchiveError(
                "archive reaches outside its own folder; nothing was unpacked",
                where=archive_path,
                expected="plain files with relative names",
                found=f"{'a link' if is_link else 'the name'} {member.filename!r}",
            )
    declared = sum(member.file_size for member in members)
    limit = archive_path.stat().st_size * _MAX_EXPANSION
    free = shutil.disk_usage(archive_path.parent).free
    if declared > limit:
        raise ArchiveError(
            "archive would unpack to far more than it holds; nothing was unpacked",
            where=archive_path,
            expected=f"at most {limit:,} bytes ({_MAX_EXPANSION} times its size)",
            found=f"{declared:,} bytes",
        )
    if declared > free:
        raise ArchiveError(
            "not enough disk space to unpack",
            where=archive_path.parent,
            expected=f"{declared:,} bytes free",
            found=f"{free:,} bytes free",
        )


def unpack(archive_path: Path, folder: Path) -> None:
    """Unpack a zip archive into ``folder``, durably: its files may be renamed and the archive removed afterwards.

    Raises:
        ArchiveError: it is not a zip archive or damaged, a member is a link or has an absolute or ``..`` name, or it
            claims more than a hundred times its own size, or more than the disk has.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _refuse_unsafe(archive_path, members)
            with progress(f"unpack {archive_path.name}", "bytes", sum(one.file_size for one in members)) as advance:
                for member in members:
                    target = folder / member.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # zipfile stops at the declared size and checks the CRC, so no member can write more than it claims.
                    with archive.open(member) as source, target.open("wb") as copy:
                        while block := source.read(_BLOCK_BYTES):
                            copy.write(block)
                            advance(len(block))
            sync_tree(folder)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ArchiveError("archive is damaged", where=archive_path, found=str(error)) from error
