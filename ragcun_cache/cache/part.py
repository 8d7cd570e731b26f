"""A part of a cache: consecutive shards that one of several machines makes, to be merged afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.errors import CacheError, ConfigError


def refuse_part(manifest: Manifest, folder: Path) -> None:
    """Raise CacheError if this is only a part of a cache, which must stay as the other parts are."""
    if "part" in manifest.provenance:
        raise CacheError(
            f"this is part {manifest.provenance['part']} of a cache",
            where=folder,
            fix=f"ragcun-cache caches merge --dataset {manifest.collection}",
        )


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


def first_shard(manifest: Manifest) -> int:
    """Return the number of the first shard that a cache holds: 0, unless it is a part."""
    part = Part.parse(manifest.provenance.get("part", "1/1"))
    return part.shards(manifest.total_rows, manifest.shard_rows).start
