from __future__ import annotations

from pathlib import Path

from benchmarks import full_softmax
from benchmarks.setting import Setting
from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.home import Home


def test_the_section_has_both_ways_at_each_size(tmp_path: Path) -> None:
    body = full_softmax.run(Setting(Home(tmp_path), tmp_path), sizes=(200, 400), queries=20, rounds=1)
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| 200, every passage",
        "| 200, 64 mined, 1,024 drawn",
        "| 400, every passage",
        "| 400, 64 mined, 1,024 drawn",
    ]
    assert "above 200,000 passages" in body


def test_the_crossing_is_between_the_sizes_around_it() -> None:
    times = {("whole", 100): 1.0, ("mined", 100): 2.0, ("whole", 200): 4.0, ("mined", 200): 3.0}
    assert "From about 150 passages" in full_softmax._crossover(times, (100, 200), AdapterConfig())
    assert "Every passage is cheaper" in full_softmax._crossover(times, (100,), AdapterConfig())
    assert "Mined negatives are cheaper" in full_softmax._crossover(times, (200,), AdapterConfig())
