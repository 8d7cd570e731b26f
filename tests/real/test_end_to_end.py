"""The main job with the real all-mpnet-base-v2: a few hundred real rows, encoded, trained on, evaluated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import open_pair
from ragcun_cache.collections import Collection, find_collection
from ragcun_cache.encoder import EncodeConfig, Weights, encode_collection, find_weights
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head

REPOSITORY = Path(__file__).resolve().parents[2]
N_PASSAGES = 240
N_QUERIES = {"train": 60, "test": 60}

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return find_weights("all-mpnet-base-v2", Home(REPOSITORY / "data"))


@pytest.fixture(scope="module")
def source() -> Collection:
    """SciFact where it is on this machine, else the built-in collection."""
    root = Path(os.environ.get("RAGCUN_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    name = str(root / "scifact") if (root / "scifact" / "corpus.jsonl").exists() else "pydocs"
    return find_collection(name, Home(REPOSITORY / "data"))


def records(collection: Collection, role: Role) -> dict[str, dict[str, str]]:
    return {
        identifier: {"_id": identifier, "title": title, "text": text}
        for batch in collection.texts(role)
        for identifier, title, text in zip(batch.ids, batch.titles, batch.texts, strict=True)
    }


def some_texts(collection: Collection, role: Role, rows: int) -> list[str]:
    batch = next(collection.texts(role))
    return [f"{title} {text}".strip() for title, text in zip(batch.titles, batch.texts, strict=True)][:rows]


@pytest.fixture(scope="module")
def encoded(
    source: Collection, weights: Weights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, Collection, Path]:
    """A small collection cut from ``source``, with its caches."""
    home = Home(tmp_path_factory.mktemp("home"))
    folder = home.collections / "small"
    (folder / "qrels").mkdir(parents=True)
    pairs = {split: source.pairs(split)[:n] for split, n in N_QUERIES.items()}
    gold = dict.fromkeys(passage for chosen in pairs.values() for _, passage in chosen)
    corpus, queries = records(source, Role.PASSAGE), records(source, Role.QUERY)
    chosen = list(dict.fromkeys([*gold, *corpus]))[:N_PASSAGES]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(corpus[i]) + "\n" for i in chosen))
    asked = dict.fromkeys(query for chosen_pairs in pairs.values() for query, _ in chosen_pairs)
    (folder / "queries.jsonl").write_text("".join(json.dumps(queries[i]) + "\n" for i in asked))
    for split, chosen_pairs in pairs.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{passage}\t1" for query, passage in chosen_pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    collection = find_collection(str(folder), home)
    encode_collection(collection, home, EncodeConfig(model=str(weights.folder), device="cpu"))
    return home, collection, weights.folder


def test_vectors_agree_with_sentence_transformers_in_float32(encoded: tuple[Home, Collection, Path]) -> None:
    from sentence_transformers import SentenceTransformer

    home, collection, folder = encoded
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    pair = open_pair(home.caches, collection)
    for role, cache in ((Role.QUERY, pair.query), (Role.PASSAGE, pair.passage)):
        texts = some_texts(collection, role, 12)
        reference_nd = model.encode(texts, batch_size=4)
        cosines = (cache.array()[: len(texts)] * reference_nd).sum(axis=1)
        assert cosines.min() >= 0.9995


def test_int8_is_near_float32(encoded: tuple[Home, Collection, Path], weights: Weights) -> None:
    _, collection, _ = encoded
    texts = [*some_texts(collection, Role.QUERY, 60), *some_texts(collection, Role.PASSAGE, 12)]
    vectors = []
    for precision in ("fp32", "int8"):
        config = EncodeConfig.model_validate({"backend": "openvino", "device": "cpu", "precision": precision})
        backend = FrozenModel(weights, config).backend
        tokens = backend.tokenise(texts).input_ids
        vectors.append(np.concatenate([backend.embed([ids], len(ids))[0] for ids in tokens]))
    cosines = np.einsum("nd,nd->n", *vectors)
    assert 0.999 < cosines.min() < 0.99999, "the least of 72 texts; without groups and wide values it is below 0.998"


def test_every_row_agrees_with_reference_vectors(encoded: tuple[Home, Collection, Path], source: Collection) -> None:
    references = source.folder.parent.parent / "embeddings" / source.name
    if not references.is_dir():
        pytest.skip("no reference vectors on this machine")
    home, collection, _ = encoded
    pair = open_pair(home.caches, collection)
    for cache, name in ((pair.query, "queries"), (pair.passage, "corpus")):
        ids = json.loads((references / f"{name}.ids.json").read_text())
        row_of = {identifier: row for row, identifier in enumerate(ids)}
        rows = [row_of[identifier] for identifier in cache.ids]
        reference_nd = np.load(references / f"{name}.npy", allow_pickle=False)[rows].astype(np.float32)
        assert (cache.array() * reference_nd).sum(axis=1).min() >= 0.9995


def test_a_head_is_trained_and_evaluated_beside_the_raw_encoder(encoded: tuple[Home, Collection, Path]) -> None:
    from ragcun_cache.evaluation.candidates import describe_head, head_encoder

    home, collection, _ = encoded
    pair = open_pair(home.caches, collection)
    trained = train_head(make_config({"arch": "lejepa", "dataset": str(collection.folder), "epochs": 1}), home)
    subject = Subject.of(collection, pair, EvalConfig())
    store = ResultStore(home.results)
    raw = subject.evaluate(raw_head(pair.passage.dim), lambda: encode_raw, store)
    head = subject.evaluate(describe_head(trained.record, home), head_encoder(trained.record, "cpu"), store)
    assert raw.metrics["ndcg@10"] > 0.3, "real vectors find real answers; random ones score about 0.02"
    assert 0.2 < head.metrics["ndcg@10"] < 1.0
    assert raw.metrics != head.metrics
