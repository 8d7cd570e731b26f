"""The version of the code that decides something: what tells what today's code made from what yesterday's did."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ragcun_cache
from ragcun_cache.files import sha256_json


@cache
def source_version(root: str, deciding: tuple[str, ...]) -> str:
    """Return the sha256 of the sources of ``root`` and of all deciding modules that it imports, directly or not.

    Comments, docstrings and layout are left out, so that an edit of them repeats nothing. A module that decides nothing
    is not looked into, and what is imported through it alone is not found.

    Args:
        root: full name of a module of this package, such as ``ragcun_cache.training.run``.
        deciding: full names of the packages, with all in them, and modules whose code decides.

    """
    sources: dict[str, str] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in sources or path is None:
            continue
        tree = ast.parse(path.read_bytes())
        waiting += [one for one in _imported(tree) if f"{one}.".startswith(tuple(f"{part}." for part in deciding))]
        sources[name] = _bare(tree)
    return sha256_json(sources)


def _path(module: str) -> Path | None:
    """Return the file of a module or package; None if the name is that of something in a module."""
    place = Path(ragcun_cache.__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield what ``tree`` imports anywhere, by full name; the project has no relative imports.

    In ``from package import name`` the name may be a module too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _bare(tree: ast.Module) -> str:
    """Return the source without comments and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Strings that stand alone do nothing: docstrings, and those that explain a member of a class.
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
