"""Several seeds in a few characters."""

from __future__ import annotations

from ragcun_cache.errors import ConfigError


def parse_seeds(text: str) -> list[int]:
    """Read ``0-9``, ``3`` or ``0,2,5-7`` as a list of seeds. Raises ConfigError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError("seeds cannot be read", expected="such as 0-9 or 0,2,5-7", found=text)
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds
