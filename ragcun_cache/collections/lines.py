"""Numbered lines of a text file that is plain, .gz or .zst, in constant memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.errors import CollectionError

SUFFIXES = ("", ".gz", ".zst")
"""What a file name may end with, in the order in which they are looked for."""

_BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


def find_file(folder: Path, name: str) -> Path | None:
    """Return ``folder/name``, or the same with ``.gz`` or ``.zst`` after it, whichever exists first."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def _read_blocks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            yield block


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    import zstandard

    # The library's own stream reader ends quietly where a frame is cut off; a decompressor object knows its end.
    frame = None
    with path.open("rb") as handle:
        while packed := handle.read(_BLOCK_BYTES):
            while packed:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                if block := frame.decompress(packed):
                    yield block
                packed = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
    if frame is not None:
        raise EOFError("the last frame has no end")


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield decompressed blocks; whatever a damaged archive makes a library raise becomes a CollectionError."""
    damaged: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    if path.suffix == ".zst":
        import zstandard

        damaged = (*damaged, zstandard.ZstdError)
    try:
        yield from (_zstd_blocks if path.suffix == ".zst" else _read_blocks)(path)
    except damaged as error:
        raise CollectionError(
            f"{path.name} is cut off or damaged",
            where=path,
            expected=f"a whole {path.suffix[1:]} file",
            found=str(error),
            fix="fetch the file again",
        ) from error


def _raw_lines(path: Path) -> Iterator[bytes]:
    tail: list[bytes] = []
    for block in _blocks(path):
        first, *others = block.split(b"\n")
        tail.append(first)
        if others:
            yield b"".join(tail)
            yield from others[:-1]
            tail = [others[-1]]
    if last := b"".join(tail):
        yield last


def read_lines(path: Path, flaws: Flaws) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(line number from 1, line)`` without line ends; only ``\n`` ends a line, a ``\r`` before it is dropped.

    A byte order mark is dropped and noted in ``flaws``. Blank lines at the end are skipped.

    Raises:
        CollectionError: a blank line between others, or a compressed file that is cut off or damaged.
    """
    blank = 0
    for number, raw in enumerate(_raw_lines(path), start=1):
        line = raw.removesuffix(b"\r")
        if number == 1 and line.startswith(_BOM):
            flaws.note("byte order mark (dropped)", path, number)
            line = line.removeprefix(_BOM)
        if not line.strip():
            blank = blank or number
            continue
        if blank:
            raise CollectionError(
                "blank line between records",
                where=f"{path}:{blank}",
                expected="one record a line",
                found="none",
            )
        yield number, line


def decode(line: bytes, where: str) -> str:
    """Return the line as text.

    Raises:
        CollectionError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CollectionError(
            "invalid UTF-8",
            where=where,
            expected="UTF-8",
            found=f"byte 0x{line[error.start]:02x} at position {error.start} of the line",
            fix="convert the file, for example with: iconv -f LATIN1 -t UTF-8",
        ) from error
