from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.collections import Collection, find_collection, sample_pairs
from ragcun_cache.encoder import EncodeConfig, EncodeReport, encode_collection
from ragcun_cache.encoder.torch_backend import TorchBackend
from ragcun_cache.home import Home


def encode(home: Home, collection: Collection, model: Path) -> EncodeReport:
    config = EncodeConfig(model=str(model), backend="torch", precision="fp32", device="cpu", shard_rows=64)
    return encode_collection(collection, home, config)[1]


def files(report: EncodeReport) -> dict[str, bytes]:
    paths = sorted(report.folder.glob("*-0*"))
    return {path.name: path.read_bytes() for path in paths}


def edit(folder: Path, share: float = 0.05) -> tuple[int, int]:
    """Edit, remove and add ``share`` of the passages each and shuffle; return how many texts are new, how many gone."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    chance = random.Random(0)
    chance.shuffle(rows)
    count = max(1, int(share * len(rows)))
    for number, row in enumerate(rows[:count]):
        row["text"] = f"edited {number}"
    added = [{"_id": f"new{number}", "text": f"added {number}"} for number in range(count)]
    kept = rows[:count] + rows[2 * count :] + added
    chance.shuffle(kept)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return 2 * count, 2 * count


def test_only_new_texts_are_encoded_and_the_bytes_are_those_of_a_fresh_encode(
    home: Home, tmp_path: Path, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_collection(n_passages=300)
    encode(home, find_collection("tiny", home), tiny_encoder)
    new, gone = edit(folder)
    texts_seen: list[str] = []
    tokenise = TorchBackend.tokenise
    monkeypatch.setattr(TorchBackend, "tokenise", lambda self, texts: texts_seen.extend(texts) or tokenise(self, texts))
    report = encode(home, find_collection("tiny", home), tiny_encoder)
    assert (report.encoded, report.copied, report.dropped) == (new, 300 - gone, gone)
    assert len(texts_seen) == new
    assert all(text.startswith(("edited", "added")) or " edited" in text for text in texts_seen)

    fresh = encode(Home(tmp_path / "fresh"), find_collection(str(folder), home), tiny_encoder)
    assert (fresh.encoded, fresh.copied) == (300, 0)
    assert files(report) == files(fresh)


def test_a_sample_of_a_cached_collection_loads_no_model(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    whole = encode(home, collection, tiny_encoder)
    monkeypatch.setattr(TorchBackend, "__init__", lambda *_, **__: pytest.fail("the model was loaded"))
    sample = encode(home, sample_pairs(collection, 20, 0, home), tiny_encoder)
    assert (sample.encoded, sample.dropped) == (0, 0)
    assert sample.copied == sample.manifest.rows > 0
    first, second = EmbeddingCache(sample.folder), EmbeddingCache(whole.folder)
    np.testing.assert_array_equal(first.array(), second.gather(second.positions(first.ids)))
    np.testing.assert_array_equal(first.norms, second.norms[second.positions(first.ids)])


def test_damage_does_not_spread(home: Home, tmp_path: Path, tiny_collection, tiny_encoder: Path) -> None:
    folder = tiny_collection(n_passages=300)
    first = encode(home, find_collection("tiny", home), tiny_encoder)
    damaged = first.folder / "vectors-00002.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    edit(folder)
    report = encode(home, find_collection("tiny", home), tiny_encoder)
    assert report.copied < 300 - 2 * 15, "rows of the damaged shard were not copied"
    fresh = encode(Home(tmp_path / "fresh"), find_collection(str(folder), home), tiny_encoder)
    assert files(report) == files(fresh)


def test_vectors_of_another_spec_are_not_copied(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    folder = tiny_collection()
    encode(home, find_collection("tiny", home), tiny_encoder)
    edit(folder)
    config = EncodeConfig(model=str(tiny_encoder), backend="torch", precision="fp32", device="cpu", max_seq_length=8)
    assert encode_collection(find_collection("tiny", home), home, config)[1].copied == 0
