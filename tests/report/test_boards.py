from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import list_caches, open_pair
from ragcun_cache.collections.collection import open_collection
from ragcun_cache.evaluation.candidates import describe_head, head_cost, head_encoder
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.heads.store import list_heads
from ragcun_cache.home import Home
from ragcun_cache.report.content import Report, build_report
from ragcun_cache.report.markdown import render_markdown
from ragcun_cache.role import Role
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head

DIM = 16


@pytest.fixture
def evaluate(
    home: Home, tiny_collection: Callable[..., Path], cache_of: Callable[..., Path]
) -> Callable[..., dict[str, object]]:
    """Cache ``tiny`` and ``other`` by two encoders; return a function that trains a head and evaluates it on tiny."""
    for seed, name in enumerate(("tiny", "other")):
        collection = open_collection(tiny_collection(name, seed=seed), name)
        for model in ("one", "two"):
            rng = np.random.default_rng(seed)
            passage_nd = rng.normal(size=(120, DIM))
            query_nd = passage_nd[:70] + rng.normal(size=(70, DIM))
            for role, prefix, rows_nd in ((Role.QUERY, "q", query_nd), (Role.PASSAGE, "p", passage_nd)):
                unit_nd = (rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)).astype(np.float16)
                ids = [f"{prefix}{row}" for row in range(len(unit_nd))]
                content = collection.content_sha256(role)
                cache_of(home.caches, name, role, ids, unit_nd, content_sha256=content, spec={"model_id": model})

    def encoder(model: str) -> str:
        return next(found.encoder for _, found in list_caches(home.caches) if found.spec["model_id"] == model)

    def evaluate_on_tiny(model: str, **settings: object) -> dict[str, object]:
        lejepa = {"arch": "lejepa", "epochs": 1, "batch_size": 8} if "arch" not in settings else {}
        record = train_head(make_config({**lejepa, **settings, "encoder": encoder(model)}), home).record
        collection, store = open_collection(home.collections / "tiny", "tiny"), ResultStore(home.results)
        subject = Subject.of(collection, open_pair(home.caches, collection, encoder(model)), EvalConfig())
        subject.evaluate(raw_head(DIM), lambda: encode_raw, store)
        system = describe_head(record, home)
        subject.evaluate(system, head_encoder(record, "cpu"), store, cost=head_cost(record))
        metrics: dict[str, object] = record.provenance["metrics"]
        return metrics

    return evaluate_on_tiny


def report(home: Home) -> Report:
    store = ResultStore(home.results)
    return build_report(store.all(), store, home, written_by="x")


def test_in_domain_and_zero_shot_heads_of_one_label_are_both_shown(
    home: Home, evaluate: Callable[..., dict[str, object]]
) -> None:
    for dataset in ("other", "tiny"):
        evaluate("one", dataset=dataset)
    evaluate("one", dataset="other", arch="untrained")
    made = report(home)
    boards = made.content["boards"]
    assert [sorted(row["label"] for row in board["rows"]) for board in boards] == 2 * [
        ["lejepa identity 16d", "raw encoder", "untrained random 16d"]
    ]
    labels = {"raw encoder", "lejepa identity 16d, zero-shot", "lejepa identity 16d, in-domain", "untrained random 16d"}
    (geometry,), (queries,) = made.content["geometry"], made.content["queries"]
    assert {one["label"] for one in geometry["systems"]} == labels
    assert len({one["series"] for one in geometry["systems"]}) == 4
    assert {one["label"] for one in queries["systems"]} == labels - {"raw encoder"}
    assert ("3", "rows beside raw") in made.content["tiles"]
    costs = render_markdown(made).split("## What quality costs")[1].split("\n## ")[0]
    for label in labels - {"raw encoder"}:
        assert costs.count(f"| {label} |") == 1
    # What was never trained is one row, whichever table it stands in.
    untrained = {row["series"] for board in boards for row in board["rows"] if row["arch"] == "untrained"}
    assert len(untrained) == 1


def test_curves_of_heads_on_different_encoders_are_not_averaged(
    home: Home, evaluate: Callable[..., dict[str, object]]
) -> None:
    # Their vectors are the same, so that only the seed tells the heads apart.
    metrics = {model: evaluate(model, dataset="other", seed=seed) for seed, model in enumerate(("one", "two"))}
    runs = report(home).content["training"]["runs"]
    assert [run["seeds"] for run in runs] == [1, 1]
    assert {run["measures"]["loss"]["mean"][-1] for run in runs} == {found["loss"] for found in metrics.values()}
    assert [run["label"].split(" (")[0] for run in runs] == [f"lejepa identity 16d, {model}" for model in metrics]
    assert len({run["series"] for run in runs}) == 2


def test_the_same_heads_in_two_tables_have_one_curve(home: Home, evaluate: Callable[..., dict[str, object]]) -> None:
    evaluate("one", dataset="other")
    store = ResultStore(home.results)
    collection = open_collection(home.collections / "tiny", "tiny")
    (head,) = list_heads(home.heads)
    pair = open_pair(home.caches, collection, head.provenance["encoder"])
    by_index = Subject.of(collection, pair, EvalConfig(index="hnsw:m=4,ef_search=110"))
    by_index.evaluate(raw_head(DIM), lambda: encode_raw, store)
    by_index.evaluate(describe_head(head, home), head_encoder(head, "cpu"), store)
    made = report(home)
    assert len(made.content["boards"]) == 2
    assert [run["label"] for run in made.content["training"]["runs"]] == ["lejepa identity 16d"]
    assert {board["rows"][1]["series"] for board in made.content["boards"]} == {0}
