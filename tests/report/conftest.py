"""A home with results of an encoder, two kinds of heads and two seeds, on a collection that tries to break the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import open_pair
from ragcun_cache.collections.collection import open_collection
from ragcun_cache.evaluation.candidates import describe_head, head_cost, head_encoder
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.home import Home
from ragcun_cache.report.content import Report, build_report
from ragcun_cache.role import Role
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head

HOSTILE = (
    "</script><script>document.title = 'broken'</script><img src=https://example.org/x.png onerror=alert(1)> {{data}}"
)
N_PASSAGES, N_QUERIES, DIM = 90, 60, 16


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, cache_of: Callable[..., Path]) -> Home:
    """Home whose collection ``hard`` has caches, two seeds of two kinds of heads, and results on 30 test queries."""
    home = Home(tmp_path_factory.mktemp("report") / "data")
    folder = home.collections / "hard"
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as corpus:
        for row in range(N_PASSAGES):
            record = {
                "_id": f"p{row}",
                "title": "" if row % 3 else HOSTILE,
                "text": f"passage {row} {HOSTILE} " + "word " * 99,
            }
            corpus.write(json.dumps(record) + "\n")
    with (folder / "queries.jsonl").open("w") as queries:
        for row in range(N_QUERIES):
            queries.write(
                json.dumps({"_id": f"q{row}", "text": f"query {row} {HOSTILE if row % 2 else 'plain'}"}) + "\n"
            )
    splits = {"train": range(30), "test": range(30, 60)}
    for split, rows in splits.items():
        lines = [f"q{row}\tp{row}\t2\nq{row}\tp{row + 1}\t1\nq{row}\tp{row + 2}\t0" for row in rows]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    collection = open_collection(folder, "hard")
    rng = np.random.default_rng(0)
    passage_nd = rng.normal(size=(N_PASSAGES, DIM))
    query_nd = passage_nd[:N_QUERIES] + 1.5 * rng.normal(size=(N_QUERIES, DIM))
    for role, prefix, vectors_nd in ((Role.QUERY, "q", query_nd), (Role.PASSAGE, "p", passage_nd)):
        unit_nd = (vectors_nd / np.linalg.norm(vectors_nd, axis=1, keepdims=True)).astype(np.float16)
        ids = [f"{prefix}{row}" for row in range(len(unit_nd))]
        cache_of(home.caches, "hard", role, ids, unit_nd, content_sha256=collection.content_sha256(role))
    subject = Subject.of(collection, open_pair(home.caches, collection), EvalConfig())
    store = ResultStore(home.results)
    subject.evaluate(raw_head(DIM), lambda: encode_raw, store)
    for seed in (0, 1):
        for settings in ({"arch": "untrained"}, {"arch": "lejepa", "init": "identity", "epochs": 2}):
            record = train_head(make_config({"dataset": "hard", "seed": seed, **settings}), home).record
            subject.evaluate(describe_head(record, home), head_encoder(record, "cpu"), store, cost=head_cost(record))
    return home


@pytest.fixture(scope="session")
def store(evaluated: Home) -> ResultStore:
    return ResultStore(evaluated.results)


@pytest.fixture(scope="session")
def results(store: ResultStore) -> list[Result]:
    return store.all()


@pytest.fixture(scope="session")
def made(results: list[Result], store: ResultStore, evaluated: Home) -> Report:
    return build_report(results, store, evaluated, written_by="ragcun-cache report")
