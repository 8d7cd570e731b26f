"""The version of the code that tunes: what tells a system of today's code from one of yesterday's."""

from __future__ import annotations

from ragcun_cache.source_version import source_version

_PACKAGE = "ragcun_cache"
_ROOT = f"{_PACKAGE}.tuning.tune"
_DECIDING = tuple(
    f"{_PACKAGE}.{part}" for part in ("adapters", "encoder.template", "heads", "objectives", "retrieval", "tuning")
)


def code_version() -> str:
    """Return the sha256 of the sources that decide what a tuning tries, how it learns and how it ranks."""
    return source_version(_ROOT, _DECIDING)
