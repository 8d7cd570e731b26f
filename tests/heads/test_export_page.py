"""The block of docs/export.md that needs nothing but vectors and a head."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.heads.apply import apply_head
from ragcun_cache.heads.config import Arch, HeadConfig, Input
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import load_head, save_head
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


@pytest.mark.parametrize("taken", list(Input))
def test_a_head_is_applied_as_the_page_says(taken: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [
        one for one in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if "apply_head" in one
    ]
    folder = tmp_path / "data" / "heads" / "NAME"
    config = HeadConfig(arch=Arch.UNTRAINED, in_dim=4, out_dim=3, similarity=Similarity.L2, input=taken)
    save_head(folder, build_head(config, seed=0), {"complete": True, "seed": 0})
    unit_nd = np.eye(4, dtype=np.float32)
    norms_n = np.array([1, 2, 3, 4], np.float32)
    np.save(tmp_path / "queries.npy", unit_nd * norms_n[:, None])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    expected_ne = apply_head(load_head(folder).head, unit_nd, Role.QUERY, norms_n=norms_n)
    np.testing.assert_array_equal(names["query_ne"], expected_ne)
    assert names["query_ne"].shape == (4, 3)
