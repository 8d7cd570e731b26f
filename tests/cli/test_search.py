from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Outcome
from typer.testing import CliRunner

from ragcun_cache.cache import open_pair
from ragcun_cache.cli.main import app
from ragcun_cache.cli.search import snippet, word_pattern
from ragcun_cache.collections import Collection, find_collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.errors import CacheError, ConfigError, EvaluationError
from ragcun_cache.home import Home
from ragcun_cache.retrieval.search import search
from ragcun_cache.similarity import Similarity
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head


def run(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, ["search", *arguments])


@pytest.fixture
def encoded(
    home: Home, tiny_collection: Callable[..., Path], tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> Collection:
    """A collection that the tiny encoder has encoded, in the home that the command uses."""
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    monkeypatch.setenv("COLUMNS", "140")
    tiny_collection()
    collection = find_collection("tiny", home)
    encode_collection(collection, home, EncodeConfig(model=str(tiny_encoder), precision="fp32", device="cpu"))
    return collection


@pytest.fixture
def ask(encoded: Collection, tiny_encoder: Path) -> Callable[..., dict[str, Any]]:
    def found(words: str, *arguments: str) -> dict[str, Any]:
        outcome = run(words, "--dataset", "tiny", "--model", str(tiny_encoder), "--json", *arguments)
        assert outcome.exception is None, outcome.exception
        content: dict[str, Any] = json.loads(outcome.stdout)
        return content

    return found


def test_words_find_what_the_same_cached_query_finds(ask: Callable[..., dict[str, Any]], encoded, home: Home) -> None:
    pair = open_pair(home.caches, encoded)
    query_1d = pair.query.gather([3])
    expected = search(
        query_1d, ["q"], pair.passage.array(), pair.passage.ids, Similarity.COSINE, 7, drop_identical_ids=False
    )["q"]
    words = next(encoded.texts(pair.query.role)).texts[3]
    (raw,) = ask(words, "--k", "7")["systems"]
    assert [one["id"] for one in raw["passages"]] == list(expected)
    assert [one["score"] for one in raw["passages"]] == pytest.approx(list(expected.values()), abs=1e-3)
    texts = next(encoded.texts(pair.passage.role))
    for one in raw["passages"]:
        row = texts.ids.index(one["id"])
        assert (one["title"], one["text"]) == (texts.titles[row], texts.texts[row])


def test_heads_stand_beside_raw(ask: Callable[..., dict[str, Any]], encoded, home: Home, tiny_encoder: Path) -> None:
    train_head(make_config({"arch": "lejepa", "init": "identity", "epochs": 0, "dataset": "tiny"}), home)
    train_head(make_config({"arch": "untrained", "dataset": "tiny"}), home)
    raw, identity, untrained = ask("alpha beta", "--head", "*lejepa*", "--head", "*untrained*")["systems"]
    assert raw["passages"] == identity["passages"]
    assert raw["passages"] != untrained["passages"]
    assert (raw["similarity"], untrained["similarity"]) == ("cosine", "l2")
    shown = run("alpha beta", "--dataset", "tiny", "--model", str(tiny_encoder), "--head", "*untrained*", "--k", "2")
    assert "raw encoder (cosine)" in shown.stdout
    assert raw["passages"][0]["id"] in shown.stdout
    assert "120 passages of tiny" in shown.stdout


def test_refusals(encoded: Collection, home: Home, tiny_encoder: Path, tmp_path: Path) -> None:
    def error(*arguments: str) -> BaseException | None:
        return run(*arguments, "--model", str(tiny_encoder)).exception

    assert isinstance(error(" ", "--dataset", "tiny"), ConfigError)
    unknown = error("words", "--dataset", "tiny", "--head", "nope")
    assert isinstance(unknown, EvaluationError)
    assert "unknown head 'nope'" in str(unknown)
    other = tmp_path / "tiny-encoder"
    other.mkdir()
    for path in tiny_encoder.rglob("*"):
        if path.is_file():
            (other / path.relative_to(tiny_encoder)).parent.mkdir(parents=True, exist_ok=True)
            (other / path.relative_to(tiny_encoder)).write_bytes(path.read_bytes())
    settings = json.loads((other / "sentence_bert_config.json").read_text())
    (other / "sentence_bert_config.json").write_text(json.dumps(settings | {"do_lower_case": True}))
    changed = run("words", "--dataset", "tiny", "--model", str(other)).exception
    assert isinstance(changed, CacheError)
    assert "not the model that made the cache" in str(changed)


def test_without_a_cache_it_names_the_encode_command(home: Home, tiny_collection, monkeypatch) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    tiny_collection()
    missing = run("words", "--dataset", "tiny").exception
    assert isinstance(missing, CacheError)
    assert "ragcun-cache encode --dataset tiny" in str(missing)


def test_a_snippet_shows_where_the_words_are() -> None:
    text = "filler " * 100 + "the vitamin lowers risk " + "filler " * 100
    found = snippet(text, word_pattern("Does Vitamin C lower the risk?"))
    assert "vitamin lowers risk" in found
    assert found.startswith("… ")
    assert found.endswith(" …")
    assert len(found) <= 250
    assert snippet("short  text\n", word_pattern("x")) == "short text"
    assert word_pattern("of it").pattern == r"\b(?:of|it)\b"
    assert not word_pattern("?!").search("anything?!")
