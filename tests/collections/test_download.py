"""Downloads from a server in this process: resumed and checked."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ragcun_cache.collections.download import fetch
from ragcun_cache.collections.registry import Archive
from ragcun_cache.errors import CollectionError


@dataclass
class Served:
    """What the server has, what it was asked, and how it misbehaves."""

    url: str = ""
    content: bytes = b""
    ranges: list[str | None] = field(default_factory=list)
    cut_first_after: int | None = None
    errors: list[int] = field(default_factory=list)
    knows_range: bool = True


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the output of the tests quiet."""

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            if state.errors:
                self.send_error(state.errors.pop(0))
                return
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "") if state.knows_range else None
            start = int(match[1]) if match else 0
            if match and start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if match else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.cut_first_after is not None:
                body, state.cut_first_after = body[: state.cut_first_after], None
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/set.zip"
        yield state
        server.shutdown()
        thread.join()


def archive_of(served: Served) -> Archive:
    return Archive(served.url, hashlib.md5(served.content, usedforsecurity=False).hexdigest())


def test_a_cut_connection_continues_where_it_stopped(served: Served, tmp_path: Path) -> None:
    served.content = bytes(range(256)) * 4000
    served.cut_first_after = 300_000
    fetch(archive_of(served), tmp_path / "set.zip", backoff_seconds=0)
    assert (tmp_path / "set.zip").read_bytes() == served.content
    assert served.ranges == [None, "bytes=300000-"]
    assert list(tmp_path.iterdir()) == [tmp_path / "set.zip"]


def test_what_was_downloaded_is_durable_before_it_has_its_name(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.content = b"content"
    fsync, replace, synced = os.fsync, Path.replace, set[int]()

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def checked(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", checked)
    fetch(archive_of(served), tmp_path / "set.zip")
    assert tmp_path.stat().st_ino in synced


def test_an_earlier_run_is_continued(served: Served, tmp_path: Path) -> None:
    served.content = b"0123456789" * 100
    (tmp_path / "set.zip.partial").write_bytes(served.content[:400])
    fetch(archive_of(served), tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == served.content
    assert served.ranges == ["bytes=400-"]


def test_a_whole_partial_file_is_only_checked(served: Served, tmp_path: Path) -> None:
    served.content = b"0123456789" * 100
    (tmp_path / "set.zip.partial").write_bytes(served.content)
    fetch(archive_of(served), tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == served.content


def test_a_server_without_ranges_starts_anew(served: Served, tmp_path: Path) -> None:
    served.content, served.knows_range = b"0123456789" * 100, False
    (tmp_path / "set.zip.partial").write_bytes(b"something else")
    fetch(archive_of(served), tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == served.content


def test_a_busy_server_is_asked_again(served: Served, tmp_path: Path) -> None:
    served.content, served.errors = b"content", [503, 429]
    fetch(archive_of(served), tmp_path / "set.zip", backoff_seconds=0)
    assert len(served.ranges) == 3


@pytest.mark.parametrize(
    ("device", "said"), [("/dev/full", "No space left on device"), ("/no/such/folder/file", "No such file")]
)
def test_a_disk_that_takes_nothing_is_no_failure_of_the_network(
    served: Served, tmp_path: Path, device: str, said: str
) -> None:
    if device == "/dev/full" and not Path(device).exists():
        pytest.skip("there is no /dev/full here")
    served.content = b"content"
    partial = tmp_path / "set.zip.partial"
    partial.symlink_to(device)
    with pytest.raises(CollectionError, match=said) as error:
        fetch(archive_of(served), tmp_path / "set.zip")
    assert error.value.where == partial
    assert len(served.ranges) == 1


def test_a_missing_file_is_not_asked_for_again(served: Served, tmp_path: Path) -> None:
    served.errors = [404]
    with pytest.raises(CollectionError, match="HTTP 404"):
        fetch(archive_of(served), tmp_path / "set.zip")
    assert len(served.ranges) == 1


def test_a_wrong_checksum_leaves_nothing(served: Served, tmp_path: Path) -> None:
    served.content = b"not what was published"
    with pytest.raises(CollectionError, match="wrong checksum") as error:
        fetch(Archive(served.url, "0" * 32), tmp_path / "set.zip")
    assert error.value.expected == f"md5 {'0' * 32}"
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    nobody_listens = Archive("http://127.0.0.1:9/set.zip", "0" * 32)
    with pytest.raises(CollectionError, match="cannot download after 2 tries") as error:
        fetch(nobody_listens, tmp_path / "set.zip", tries=2, backoff_seconds=0)
    assert "RAGCUN_COLLECTIONS" in str(error.value.fix)
