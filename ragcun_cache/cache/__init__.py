"""Verified on-disk shards of vectors, their ids and where they came from. Needs numpy and pyarrow, never torch."""

from ragcun_cache.cache.layout import CacheLayout
from ragcun_cache.cache.manifest import Manifest, ShardRecord
from ragcun_cache.cache.pair import CachePair, list_caches, open_pair
from ragcun_cache.cache.reader import EmbeddingCache
from ragcun_cache.cache.shard import Shard
from ragcun_cache.cache.verify import Damage, repair, verify
from ragcun_cache.cache.writer import CacheWriter

__all__ = [
    "CacheLayout",
    "CachePair",
    "CacheWriter",
    "Damage",
    "EmbeddingCache",
    "Manifest",
    "Shard",
    "ShardRecord",
    "list_caches",
    "open_pair",
    "repair",
    "verify",
]
