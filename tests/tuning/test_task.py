from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.adapters.closed_form import linear_head
from ragcun_cache.cache import EmbeddingCache, open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.heads.config import Side
from ragcun_cache.heads.store import save_head
from ragcun_cache.home import Home
from ragcun_cache.tuning.config import TuneConfig
from ragcun_cache.tuning.task import Task


@pytest.fixture(autouse=True)
def collections(judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 40, "test": 20})
    judged_collection("others", splits={"train": 40, "test": 20}, seed=1)


def made_from(home: Home, **settings: object) -> str:
    return Task.of(TuneConfig.model_validate({"dataset": "topics"} | settings), home).made_from()


def shorten(home: Home, collection: str, split: str) -> None:
    path = home.collections / collection / "qrels" / f"{split}.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


@pytest.mark.parametrize(
    ("collection", "split", "changed"),
    [
        ("topics", "train", ["train"]),
        ("topics", "test", ["train", "none"]),
        ("others", "train", ["none"]),
        ("others", "test", []),
    ],
)
def test_other_judgements_are_another_tuning_where_they_have_a_part(
    home: Home, collection: str, split: str, changed: list[str]
) -> None:
    before = {labels: made_from(home, labels=labels) for labels in ("train", "none")}
    assert before == {labels: made_from(home, labels=labels) for labels in before}
    shorten(home, collection, split)
    assert [labels for labels in before if made_from(home, labels=labels) != before[labels]] == changed


def test_so_are_other_collections_that_choose(home: Home, judged_collection: Callable[..., Path]) -> None:
    before, named = made_from(home, labels="none"), made_from(home, labels="none", transfer=["others"])
    in_domain = made_from(home)
    judged_collection("thirds", splits={"train": 40, "test": 20}, seed=2)
    assert made_from(home, labels="none") != before
    assert made_from(home, labels="none", transfer=["others"]) == named and made_from(home) == in_domain


def test_so_are_other_heads_of_the_same_name(home: Home) -> None:
    pair = open_pair(home.caches, find_collection("topics", home))

    def save(name: str, weight: float) -> None:
        head = linear_head(weight * np.eye(pair.passage.dim, dtype=np.float32), Side.QUERY)
        save_head(home.heads / name, head, {"complete": True, "encoder": pair.encoder})

    save("a-0", 1.0)
    before = made_from(home, heads=["a-*"])
    save("a-0", 2.0)
    heavier = made_from(home, heads=["a-*"])
    save("a-1", 1.0)
    assert len({before, heavier, made_from(home, heads=["a-*"])}) == 3
    assert made_from(home, heads=["a-0"]) == heavier


def test_so_are_other_libraries_and_other_code(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made_from(home)
    monkeypatch.setattr("ragcun_cache.tuning.task.version", lambda name: "0")
    libraries = made_from(home)
    monkeypatch.setattr("ragcun_cache.tuning.task.code_version", lambda: "0")
    assert len({before, libraries, made_from(home)}) == 3


def test_no_vector_is_read_for_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddingCache, "shard", lambda self, index: pytest.fail("vectors were read"))
    assert made_from(home) and made_from(home, labels="none")
