from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import mined_negatives
from benchmarks.setting import Setting
from ragcun_cache.home import Home


def test_mined_negatives_are_beside_every_passage_and_raw(
    home: Home, judged_collection: Callable[..., Path], tmp_path: Path
) -> None:
    folder = judged_collection("topics", splits={"train": 200, "test": 20})
    (folder / "qrels" / "test.tsv").write_text("not to be read")
    section = mined_negatives.run(Setting(home, tmp_path), datasets=["topics"], seeds=2)
    assert "`topics`, 200 queries, 150 passages" in section
    rows = {cells[0]: cells[1:] for cells in map(_cells, section.splitlines()) if cells}
    ways = ["raw encoder", "every passage", "64 mined, 1,024 drawn", "64 mined alone"]
    assert list(rows)[2:] == ways
    ndcg = {name: float(rows[name][0].split(" ± ")[0]) for name in ways}
    assert ndcg["every passage"] > ndcg["raw encoder"] + 0.02
    for name in ways[2:]:
        assert float(rows[name][1]) == pytest.approx(ndcg[name] - ndcg["every passage"], abs=1.1e-4)
    assert ndcg["64 mined, 1,024 drawn"] == pytest.approx(ndcg["every passage"], abs=0.01)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
