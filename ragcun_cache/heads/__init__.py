"""Trained maps from encoder vectors to the vectors that are searched. Importing this package does not load torch."""

from __future__ import annotations

from ragcun_cache.heads.apply import apply_head
from ragcun_cache.heads.config import Arch, HeadConfig
from ragcun_cache.heads.store import HeadRecord, SavedHead, list_heads, load_head, read_record

__all__ = ["Arch", "HeadConfig", "HeadRecord", "SavedHead", "apply_head", "list_heads", "load_head", "read_record"]
