"""Where a cache is read from: a folder of this machine, or any place that fsspec reaches (``s3://``, ``gs://`` …)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ragcun_cache.errors import CacheError


class Place(Protocol):
    """A folder that can be read."""

    address: Path | str
    """The folder, for messages and for opening it again."""

    def sizes(self) -> Mapping[str, int | None]:
        """Return the size in bytes of every file, None where a listing does not tell it (that of a web server)."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Raises CacheError if it cannot be read."""

    def local(self, name: str) -> Path | None:
        """Return the path of a file that can be memory-mapped; None where files are remote."""


def place_of(address: Path | str) -> Place:
    """Return the folder that ``address`` names: remote if it is a URL, else local."""
    return RemotePlace(str(address)) if is_remote(address) else LocalPlace(Path(address))


def is_remote(address: Path | str) -> bool:
    """Whether ``address`` is a URL."""
    return isinstance(address, str) and "://" in address


def repair_command(address: Path | str) -> str | None:
    """Return the command that repairs the cache at ``address``; None of a remote one, as it repairs folders alone."""
    return None if is_remote(address) else f"ragcun-cache caches verify --repair {address}"


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.address: Path | str = folder
        self._folder = folder

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file; nothing if there is no folder."""
        sizes: dict[str, int] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    # A writer's partial file may get its final name between being listed and being measured.
                    with suppress(FileNotFoundError):
                        if entry.is_file():
                            sizes[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CacheError("the cache folder cannot be read", where=self._folder, found=error) from None
        return sizes

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Raises CacheError if it cannot be read."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise CacheError("a file of the cache cannot be read", where=self._folder / name, found=error) from None

    def local(self, name: str) -> Path:
        """Return the path of a file."""
        return self._folder / name


class RemotePlace:
    """A folder that fsspec reaches. Every file is fetched whole when it is first needed, and not kept."""

    def __init__(self, url: str) -> None:
        """Find the file system of ``url``; credentials are those that its own tools use.

        Raises:
            CacheError: no installed package handles this kind of URL.
        """
        self.address: Path | str = url.rstrip("/")
        self._files, self._root = open_file_system(url)

    def sizes(self) -> dict[str, int | None]:
        """Return the size in bytes of every file, None where it is not told; nothing if there is no such folder."""
        with remote_errors("the remote cache cannot be listed", self.address):
            self._files.invalidate_cache(self._root)  # Not every file system can be told to list anew.
            try:
                entries: list[dict[str, Any]] = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        return {e["name"].rstrip("/").rsplit("/", 1)[-1]: e["size"] for e in entries if e["type"] == "file"}

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Raises CacheError if it cannot be read."""
        with remote_errors("a file of the remote cache cannot be read", f"{self.address}/{name}"):
            return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def local(self, name: str) -> None:
        """Nothing here can be memory-mapped."""


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of ``url`` and the path that ``url`` has in it.

    Raises:
        CacheError: no installed package handles this kind of URL, or it has no access.
    """
    import fsspec

    with remote_errors("no access to this kind of address", url):
        files, root = fsspec.core.url_to_fs(url.rstrip("/"))
    return files, str(root)


@contextmanager
def remote_errors(problem: str, where: Path | str) -> Iterator[None]:
    """Turn whatever a file system raises into a CacheError."""
    try:
        yield
    except CacheError:
        raise
    except Exception as error:  # Each file system has errors of its own kinds; most are no OSError.
        raise CacheError(problem, where=where, found=f"{type(error).__name__}: {error}") from error
