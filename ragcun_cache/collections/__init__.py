"""Passages, queries and relevance judgements: found, fetched, checked and read."""

from ragcun_cache.collections.check import check_collection
from ragcun_cache.collections.collection import Collection, open_collection
from ragcun_cache.collections.flaws import Flaw
from ragcun_cache.collections.locate import collections_on_disk, find_collection
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.collections.reader import Texts
from ragcun_cache.collections.registry import REGISTRY, Published, members
from ragcun_cache.collections.sample import sample_pairs
from ragcun_cache.collections.titles import title_pairs

__all__ = [
    "REGISTRY",
    "Collection",
    "Flaw",
    "Published",
    "Qrels",
    "Texts",
    "check_collection",
    "collections_on_disk",
    "find_collection",
    "members",
    "open_collection",
    "sample_pairs",
    "title_pairs",
]
