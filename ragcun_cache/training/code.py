"""The version of the code that trains: what tells a run by today's code from one by yesterday's."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import ragcun_cache
from ragcun_cache.files import sha256_json

_PACKAGE = "ragcun_cache"
_ROOT = f"{_PACKAGE}.training.run"
_DECIDING = tuple(f"{_PACKAGE}.{part}." for part in ("diagnostics", "heads", "objectives", "training"))


@cache
def code_version() -> str:
    """Return 8 hex digits of the sources of all heads, objectives, diagnostics and training modules that a run imports.

    Comments, docstrings and layout are left out, so that an edit of them repeats no run. Heads of the user's own are
    not part of it: each is told by the sha256 of its own file.
    """
    sources: dict[str, str] = {}
    waiting = [_ROOT]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            tree = ast.parse(_path(name).read_bytes())
            sources[name] = _bare(tree)
            waiting += _imported(tree)
    return sha256_json(sources)[:8]


def _path(module: str) -> Path:
    return Path(ragcun_cache.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _imported(tree: ast.Module) -> list[str]:
    """Return the deciding modules that ``tree`` imports anywhere; the project writes ``from module import name``."""
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [module for module in modules if module is not None and module.startswith(_DECIDING)]


def _bare(tree: ast.Module) -> str:
    """Return the source without comments and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Strings that stand alone do nothing: docstrings, and those that explain a member of a class.
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
