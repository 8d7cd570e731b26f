from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.encode_engines import Encodes, same_files
from benchmarks.models import write_collection
from ragcun_cache.errors import EncoderError
from ragcun_cache.home import Home


def test_whole_and_parts_are_compared_by_all_their_files(
    home: Home, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    texts = write_collection(tmp_path / "texts", [f"passage {row} of cells" for row in range(70)])
    encodes = Encodes(home, texts, tiny_encoder, shards=3)
    encodes.whole()
    whole = encodes.files
    assert len([name for name in whole if "passage" in name and "vectors-" in name]) == 3
    encodes.parts()
    assert same_files([encodes.files], whole) == "the same"


def test_what_differs_or_lacks_is_counted() -> None:
    expected = {"vectors-0": "a", "vectors-1": "b", "rows-0": "c"}
    assert same_files([expected, {"vectors-0": "a", "vectors-1": "x", "rows-0": "c"}], expected) == "1 of 3 differ"
    assert same_files([{"vectors-0": "a"}], expected) == "2 of 3 differ"


def test_a_command_that_fails_ends_the_benchmark(home: Home, tiny_encoder: Path, tmp_path: Path) -> None:
    encodes = Encodes(home, tmp_path / "nothing", tiny_encoder, shards=3)
    with pytest.raises(EncoderError, match="a command failed"):
        encodes.whole()
