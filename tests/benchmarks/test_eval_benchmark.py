from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import eval_scale
from benchmarks.eval import run
from benchmarks.setting import Setting
from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home


def test_beir_finds_the_same_figures(
    home: Home, cached_collection: Callable[..., tuple[Collection, CachePair]]
) -> None:
    cached_collection(n_passages=200, noise=3.0)
    section = run(Setting(home, home.root, None), names=["tiny"])
    assert "tiny (15 queries, 200 passages)" in section
    assert "| beir, its default depths, 1 to 1000 |" in section


def test_vectors_that_are_not_there_are_an_error_that_says_how_to_make_them(
    home: Home, tiny_collection: Callable[..., Path]
) -> None:
    tiny_collection("tiny")
    with pytest.raises(CacheError) as caught:
        run(Setting(home, home.root, None), names=["tiny"])
    assert caught.value.fix == "ragcun-cache encode --dataset tiny"


def test_a_large_corpus_is_searched_right_at_every_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.eval_scale._SHARD_ROWS", 3000)
    section = eval_scale.run(Setting(Home(tmp_path), tmp_path, 40_000), queries=30, slice_rows=2000)
    assert "40,000 passages" in section
    assert "| FAISS `IndexFlatIP` |" in section
