"""A changed collection and the real all-mpnet-base-v2: new texts alone are encoded, to the bytes of a fresh encode."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ragcun_cache.collections import find_collection
from ragcun_cache.encoder import EncodeConfig, EncodeReport, encode_collection, find_weights
from ragcun_cache.home import Home
from ragcun_cache.role import Role

REPOSITORY = Path(__file__).resolve().parents[2]
N_PASSAGES = 150

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "a query"}) + "\n")


def encode(folder: Path, home: Home, model: Path) -> EncodeReport:
    config = EncodeConfig(model=str(model), device="cpu", shard_rows=64)
    return encode_collection(find_collection(str(folder), home), home, config)[1]


def test_increments_are_byte_identical_to_a_fresh_encode(tmp_path: Path) -> None:
    source = find_collection("pydocs", Home(REPOSITORY / "data"))
    model = find_weights("all-mpnet-base-v2", Home(REPOSITORY / "data")).folder
    batch = next(source.texts(Role.PASSAGE))
    rows = [{"_id": i, "text": text} for i, text in zip(batch.ids, batch.texts, strict=True)][: N_PASSAGES + 10]
    home, folder = Home(tmp_path / "home"), tmp_path / "changing"
    write(folder, rows[:N_PASSAGES])
    encode(folder, home, model)
    changed = [{**row, "text": f"{row['text']} Edited."} for row in rows[:5]] + rows[10:]
    random.Random(0).shuffle(changed)
    write(folder, changed)
    report = encode(folder, home, model)
    assert (report.encoded, report.copied, report.dropped) == (15, N_PASSAGES - 10, 10)
    fresh = encode(folder, Home(tmp_path / "fresh"), model)
    assert fresh.encoded == len(changed) == N_PASSAGES + 5
    for path in sorted(fresh.folder.glob("*-0*")):
        assert path.read_bytes() == (report.folder / path.name).read_bytes(), path.name
