"""Zip archives reach nothing outside their folder and fill no disk."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from ragcun_cache import archive as archive_module
from ragcun_cache.archive import unpack
from ragcun_cache.errors import ArchiveError


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "set/../../out.txt", "..\\out.txt", "C:/out.txt"])
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = zip_of(tmp_path / "set.zip", {"set/fine.txt": b"x", name: b"x"})
    with pytest.raises(ArchiveError, match="outside its own folder"):
        unpack(archive, tmp_path / "unpacked")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="a link 'set/link'"):
        unpack(tmp_path / "set.zip", tmp_path / "unpacked")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {"set/zeros": bytes(5_000_000)})
    with pytest.raises(ArchiveError, match="far more than it holds"):
        unpack(archive, tmp_path / "unpacked")


def test_a_lie_about_the_size_is_refused(tmp_path: Path) -> None:
    content = zip_of(tmp_path / "set.zip", {"set/text": b"word " * 10_000}).read_bytes()
    true_size, lie = (50_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert content.count(true_size) == 2
    (tmp_path / "set.zip").write_bytes(content.replace(true_size, lie))
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(tmp_path / "set.zip", tmp_path / "unpacked")


def test_a_full_disk_is_said_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_of(tmp_path / "set.zip", {"set/text": b"some words"})
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(ArchiveError, match="not enough disk space"):
        unpack(archive, tmp_path / "unpacked")


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"<html>")
    with pytest.raises(ArchiveError, match="archive is damaged"):
        unpack(tmp_path / "set.zip", tmp_path / "unpacked")
