"""The version of the code that trains: what tells a run by today's code from one by yesterday's."""

from __future__ import annotations

from ragcun_cache.source_version import source_version

_PACKAGE = "ragcun_cache"
_ROOT = f"{_PACKAGE}.training.run"
_DECIDING = tuple(f"{_PACKAGE}.{part}" for part in ("diagnostics", "heads", "objectives", "training"))


def code_version() -> str:
    """Return 8 hex digits of the sources of all heads, objectives, diagnostics and training modules that a run imports.

    Heads of the user's own are not part of it: each is told by the sha256 of its own file.
    """
    return source_version(_ROOT, _DECIDING)[:8]
