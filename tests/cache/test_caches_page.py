from __future__ import annotations

import re
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache

PAGE = Path(__file__).resolve().parents[2] / "docs" / "caches.md"


def test_every_python_block_runs_and_reads_the_right_vectors(tiny_pair, home, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "polars", "duckdb", "pandas"):
        pytest.importorskip(package)
    tiny_pair()
    monkeypatch.chdir(home.root.parent)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    seen = set()
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        cache = EmbeddingCache(names["layout"].folder)
        stored_nd = cache.array(np.float16)
        if "vectors_nd" in names:
            np.testing.assert_array_equal(names.pop("vectors_nd"), stored_nd)
            seen.add("polars" if "polars" in block else "pandas")
        if "by_id" in names:
            np.testing.assert_array_equal(np.stack([names["by_id"][name] for name in cache.ids]), stored_nd)
            del names["by_id"]
            seen.add("duckdb")
    assert seen == {"polars", "pandas", "duckdb"}
    np.testing.assert_array_equal(np.load("vectors.npy"), stored_nd)
    np.testing.assert_array_equal(names["same_nd"], cache.array()[:3])
    np.testing.assert_array_equal(names["few_nd"], cache.array()[[3, 1, 2]])
    assert names["shard_ids"] == cache.ids[: len(names["shard_ids"])]
    np.testing.assert_array_equal(names["first_nd"], stored_nd[: len(names["shard_ids"])])
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
