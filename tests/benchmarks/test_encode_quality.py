from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.encode_quality import run
from benchmarks.setting import Setting
from ragcun_cache.collections import find_collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home


def test_each_precision_is_beside_float32_of_its_own_model(
    home: Home, tiny_collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    collection = find_collection(str(tiny_collection()), home)
    setting = Setting(home, tmp_path)

    def encode(**settings: str) -> None:
        encode_collection(collection, home, EncodeConfig.model_validate({"model": str(tiny_encoder), **settings}))

    encode(backend="torch", precision="bf16")
    with pytest.raises(CacheError, match=r"not cached in fp32[\s\S]*torch bf16[\s\S]*--precision int8"):
        run(setting, datasets=["tiny"])
    encode(backend="torch", precision="fp32")
    section = run(setting, datasets=["tiny"])
    exact, bf16 = (line.split(" | ") for line in section.splitlines() if line.startswith("| torch"))
    assert "`tiny`, 15 queries, 120 passages" in section
    assert exact[0] == "| torch fp32, stored in float16"
    assert bf16[0] == "| torch bf16, stored in float16"
    assert 0.99 < float(bf16[1].split(" / ")[1]) < 1.0
    assert float(bf16[3]) == pytest.approx(float(bf16[2]) - float(exact[2]), abs=1.1e-4)
