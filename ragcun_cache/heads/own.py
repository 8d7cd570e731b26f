"""Architectures of the user's own: classes that Python files register, found through ``$RAGCUN_HEADS``."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragcun_cache.errors import HeadError
from ragcun_cache.files import sha256_file
from ragcun_cache.heads.config import ADAPTER, Arch, HeadConfig

if TYPE_CHECKING:
    from ragcun_cache.heads.head import Head

VARIABLE = "RAGCUN_HEADS"


@dataclass(frozen=True)
class OwnArch:
    """How a head of the user's own is built, and the sha256 of the file that says so (None: no file)."""

    build: Callable[[HeadConfig], Head]
    source_sha256: str | None


_registered: dict[str, OwnArch] = {}
_loaded: dict[Path, str] = {}


def register_head(arch: str, build: Callable[[HeadConfig], Head]) -> None:
    """Make ``arch`` a name that ``train-head --arch``, recipes and ``eval`` know.

    Args:
        arch: the name; that of a built-in architecture is refused.
        build: a subclass of ``Head``, or any function from a config to one. All of the head's parameters are saved.

    Raises:
        HeadError: the name is taken by a built-in architecture.

    """
    if arch in (*Arch, ADAPTER):
        raise HeadError(f"{arch} is a built-in architecture", fix="register your head under another name")
    _registered[arch] = OwnArch(build, None)


def own_archs() -> dict[str, OwnArch]:
    """Return all that is registered, once the files in ``$RAGCUN_HEADS`` (files or folders of them) have been run.

    Raises:
        HeadError: a file is not there, or raises an error.

    """
    for given in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(given)
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            _run(file)
    return dict(_registered)


def _run(file: Path) -> None:
    if not file.is_file():
        raise HeadError("there is no such file of heads", where=file, fix=f"set {VARIABLE} to Python files or folders")
    sha256 = sha256_file(file)
    if _loaded.get(file.resolve()) == sha256:
        return
    before = dict(_registered)
    try:
        runpy.run_path(str(file))
    except HeadError:
        raise
    except Exception as error:
        raise HeadError(
            "a file of heads raised an error", where=file, found=f"{type(error).__name__}: {error}"
        ) from error
    _loaded[file.resolve()] = sha256
    for arch, own in _registered.items():
        if before.get(arch) is not own:
            _registered[arch] = OwnArch(own.build, sha256)
