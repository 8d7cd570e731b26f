"""Syncing files and folders where systems differ."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragcun_cache import files
from ragcun_cache.files import link_or_copy, sync_folder, write_text


class Windows(SimpleNamespace):
    """The module ``os`` as it is there, as far as writing files goes."""

    name = "nt"
    O_RDONLY = os.O_RDONLY
    getpid = staticmethod(os.getpid)

    @staticmethod
    def open(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    @staticmethod
    def fsync(handle: int) -> None:
        try:
            os.pwrite(handle, b"", 0)
        except OSError:
            raise OSError(errno.EBADF, "Bad file descriptor") from None
        os.fsync(handle)


def test_files_are_written_and_linked_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "os", Windows)
    write_text(tmp_path / "made" / "a.txt", "text")
    link_or_copy(tmp_path / "made" / "a.txt", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "text"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.ENOSPC])
def test_a_file_system_may_not_sync_folders_but_not_fail(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = list[int]()

    def fsync(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    def close(handle: int, real: Any = os.close) -> None:
        closed.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "close", close)
    if code in (errno.EINVAL, errno.ENOTSUP):
        sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            sync_folder(tmp_path)
    assert len(closed) == 1


def test_a_file_that_does_not_become_durable_is_no_matter_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []
