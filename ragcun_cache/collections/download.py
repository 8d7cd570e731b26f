"""Archives fetched over HTTP, resumable and checked."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from ragcun_cache.collections.registry import Archive
from ragcun_cache.errors import CollectionError
from ragcun_cache.files import DISK_ERRORS, sync_file, sync_folder
from ragcun_cache.progress import progress

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0


class _Passing(Exception):
    """A failure that a later try may not meet again."""


def md5_file(path: Path) -> str:
    """Return the md5 of the file's bytes, in hexadecimal: what publishers of collections give."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _total_bytes(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length else None


def _receive(url: str, partial: Path) -> None:
    """Append what ``partial`` still lacks of the file at ``url``; it keeps whatever arrives before a failure."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        start = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = _total_bytes(response, start)
        with partial.open("ab" if start else "wb") as handle, progress(partial.stem, "bytes", total) as advance:
            advance(start)
            while block := response.read(_BLOCK_BYTES):
                handle.write(block)
                advance(len(block))
            if total is not None and handle.tell() < total:
                raise _Passing(f"connection closed after {handle.tell():,} of {total:,} bytes")


def _try_to_receive(url: str, partial: Path) -> None:
    """As :func:`_receive`.

    Raises:
        _Passing: what a later try may not meet.
        HTTPError: an answer that will stay the same.
        CollectionError: ``partial`` cannot be written.
    """
    try:
        _receive(url, partial)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # Nothing lacks: whether what is there is right, the checksum says.
        if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in (
            http.HTTPStatus.REQUEST_TIMEOUT,
            http.HTTPStatus.TOO_MANY_REQUESTS,
        ):
            raise
        raise _Passing(f"HTTP {error.code}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        # The network knows no file names.
        if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_ERRORS):
            raise CollectionError(
                "what is downloaded cannot be written",
                where=partial,
                found=error.strerror,
                fix="make room or mend the folder, then run the same command again: it goes on from here",
            ) from error
        raise _Passing(str(error)) from error


def fetch(archive: Archive, target: Path, *, tries: int = 5, backoff_seconds: float = 1.0) -> None:
    """Download the archive to ``target``, which exists only once its checksum was right.

    A download that breaks off continues from ``<target>.partial``, now or at the next call (HTTP Range). Between tries
    it waits ``backoff_seconds``, doubled each time.

    Raises:
        CollectionError: no answer after ``tries`` tries, an HTTP error that will not pass, a disk that is full or
            failing, or a wrong checksum (the bytes are then thrown away).
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(tries):
        try:
            _try_to_receive(archive.url, partial)
            break
        except _Passing as error:
            if attempt == tries - 1:
                raise CollectionError(
                    f"cannot download after {tries} tries",
                    where=archive.url,
                    found=str(error),
                    fix="with a network, run the same command again (it continues where it stopped); without one, put "
                    "the unpacked collection on this machine and name its parent folder in RAGCUN_COLLECTIONS",
                ) from error
            time.sleep(backoff_seconds * 2**attempt)
        except urllib.error.HTTPError as error:
            raise CollectionError("cannot download", where=archive.url, found=f"HTTP {error.code}") from error
    found = md5_file(partial) if partial.exists() else "no bytes"
    if found != archive.md5:
        partial.unlink(missing_ok=True)
        raise CollectionError(
            "downloaded file has the wrong checksum; it was thrown away",
            where=archive.url,
            expected=f"md5 {archive.md5}",
            found=f"md5 {found}",
            fix="run the same command again",
        )
    sync_file(partial)
    partial.replace(target)
    sync_folder(target.parent)
