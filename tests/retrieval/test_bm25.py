from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ragcun_cache.collections.locate import find_collection
from ragcun_cache.home import Home
from ragcun_cache.retrieval.bm25 import Bm25Config, Bm25Index

PASSAGES = [
    ("a", "", "The cats sat"),
    ("b", "Cat", "a cat runs, and another cat"),
    ("c", "", "dogs bark"),
    ("d", "", ""),
]


def write(home: Home, passages: list[tuple[str, str, str]], name: str = "pets") -> Path:
    import orjson

    folder = home.collections / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps({"_id": one, "title": title, "text": text}) for one, title, text in passages]
    (folder / "corpus.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "cat"}\n')
    return folder


def test_scores_are_those_of_the_formula(home: Home) -> None:
    write(home, PASSAGES)
    index = Bm25Index.of(find_collection("pets", home), home)
    scores_qn = index.scores(["Cats", "unknown words", "", "the and a"])
    assert index.ids == ["a", "b", "c", "d"]
    assert scores_qn.shape == (4, 4) and scores_qn.dtype == np.float32
    # Stems without stop words: a = cat sat; b = cat cat run anoth cat; c = dog bark; d = nothing.
    lengths, frequency = np.array([2, 5, 2, 0]), np.array([1, 3, 0, 0])
    idf = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    expected_n = idf * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * lengths / lengths.mean()))
    np.testing.assert_allclose(scores_qn[0], expected_n, rtol=1e-5)
    assert not scores_qn[1:].any()


def test_an_index_is_built_once_for_texts_and_parameters(home: Home, monkeypatch) -> None:
    write(home, PASSAGES)
    collection = find_collection("pets", home)
    first = Bm25Index.of(collection, home)
    other = Bm25Index.of(collection, home, Bm25Config(b=0.9))
    assert other.sha256 != first.sha256 and other.folder != first.folder

    def refuse(*given: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("ragcun_cache.retrieval.bm25._build", refuse)
    again = Bm25Index.of(collection, home)
    assert (again.folder, again.sha256, again.bytes) == (first.folder, first.sha256, first.bytes)
    np.testing.assert_array_equal(again.scores(["cat dog"]), first.scores(["cat dog"]))


def test_changed_texts_have_an_index_of_their_own(home: Home) -> None:
    write(home, PASSAGES)
    before = Bm25Index.of(find_collection("pets", home), home)
    write(home, [*PASSAGES, ("e", "", "one more cat")])
    after = Bm25Index.of(find_collection("pets", home), home)
    assert after.folder != before.folder and len(after.ids) == 5


def test_a_damaged_index_is_built_again(home: Home, tiny_collection: Callable[..., Path]) -> None:
    tiny_collection("tiny")
    collection = find_collection("tiny", home)
    index = Bm25Index.of(collection, home)
    expected_qn = index.scores(["alpha beta"])
    for path in sorted(index.folder.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        np.testing.assert_array_equal(Bm25Index.of(collection, home).scores(["alpha beta"]), expected_qn)
    assert not list(index.folder.glob("*.pkl"))
