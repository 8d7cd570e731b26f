"""A part of a cache: consecutive shards that one of several machines makes, to be merged afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.errors import ConfigError


def shard_count(total_rows: int, shard_rows: int) -> int:
    """Return how many shards ``total_rows`` rows make."""
    return -(-total_rows // shard_rows)


@dataclass(frozen=True)
class Part:
    """Part ``number`` (from 1) ``of`` so many. Between them they have every shard once."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``i/n``.

        Raises:
            ConfigError: it is something else, or i is not from 1 to n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise ConfigError(
                "--part is not valid", expected="i/n with i from 1 to n, such as 2/4 for the second quarter", found=text
            )
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def shards(self, total_rows: int, shard_rows: int) -> range:
        """Return the numbers of its shards. There are none when there are fewer shards than parts."""
        shards = shard_count(total_rows, shard_rows)
        return range((self.number - 1) * shards // self.of, self.number * shards // self.of)

    def layout(self, whole: CacheLayout) -> CacheLayout:
        """Return where it lies, given where the whole cache will."""
        return whole.part(self.number, self.of)
