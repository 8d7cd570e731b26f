from __future__ import annotations

from pathlib import Path

from benchmarks.encode_memory import encode_passages, run, write_passages
from benchmarks.setting import Setting
from ragcun_cache.cache import EmbeddingCache, verify
from ragcun_cache.home import Home


def test_the_fake_model_goes_through_the_whole_encode(tmp_path: Path) -> None:
    write_passages(tmp_path / "corpus", 1_300)
    report = encode_passages(tmp_path / "corpus")
    assert EmbeddingCache(report.folder).rows == report.encoded == 1_300
    assert report.manifest.tokens == report.phases.tokens > 11 * 1_300
    assert 0 <= report.phases.pad_share < 0.125
    assert verify(report.folder) == []


def test_the_section_gives_the_peak_of_both_sizes(tmp_path: Path) -> None:
    section = run(Setting(Home(tmp_path), tmp_path / "scratch", rows=400))
    assert "| 100 |" in section
    assert "| 400 |" in section
    assert "peak memory, GB" in section
