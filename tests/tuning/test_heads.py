"""Heads that a tuning tries: what they were trained on keeps them out, keeps collections out, and is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.adapters.closed_form import linear_head
from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.collections.origin import Origin, origin_of
from ragcun_cache.errors import HeadError, TrainingError
from ragcun_cache.evaluation.leaderboard import build_leaderboards
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import TrainedOn
from ragcun_cache.heads.config import Side
from ragcun_cache.heads.store import save_head
from ragcun_cache.home import Home
from ragcun_cache.tuning import ladder
from ragcun_cache.tuning.choice import Dev, Trial
from ragcun_cache.tuning.config import TuneConfig
from ragcun_cache.tuning.tune import Tuned, tune


@pytest.fixture
def head(home: Home, judged_collection: Callable[..., Path]) -> Callable[..., str]:
    """Keep a head that is the identity, and says that it was trained on a split of a collection."""
    judged_collection(splits={"train": 120, "test": 60})
    pair = open_pair(home.caches, find_collection("topics", home))

    def keep(collection: str, split: str = "train", **train: object) -> str:
        name = f"{collection}-{split}"
        provenance = {
            "complete": True,
            "seed": 0,
            "encoder": pair.encoder,
            "caches": {"collection": collection},
            "train_pairs": 100,
            "train": {"train": split, "epochs": 1, **train},
        }
        save_head(home.heads / name, linear_head(np.eye(pair.passage.dim, dtype=np.float32), Side.QUERY), provenance)
        return name

    return keep


def run(home: Home, head: str, *, minutes: float = 1e-9, **settings: object) -> Tuned:
    given = {"dataset": "topics", "minutes": minutes, "heads": [head]} | settings
    return tune(TuneConfig.model_validate(given), home, ResultStore(home.results))


def is_sample(home: Home, name: str, whole: str) -> None:
    (home.collections / name / "collection.json").write_text(json.dumps({"sample_of": whole}))


def test_a_head_that_knows_the_dev_queries_is_refused(home: Home, head: Callable[..., str]) -> None:
    with pytest.raises(HeadError, match=r"trained or chosen by topics/train"):
        run(home, head("topics"))
    with pytest.raises(HeadError, match="topics/test"):
        run(home, head("topics", "test"))
    # Trained on a sample that is not here any more, by its own name and by that of the whole.
    with pytest.raises(HeadError, match="topics/train"):
        run(home, head("topics-pairs50-seed3"))
    with pytest.raises(HeadError, match="topics/train"):
        run(home, head("topics-pairs60-seed3", pairs=60, pairs_seed=3))
    assert run(home, head("elsewhere")).trials


def test_where_there_is_a_dev_split_it_is_what_a_head_must_not_know(
    home: Home, head: Callable[..., str], judged_collection: Callable[..., Path]
) -> None:
    judged_collection("split", splits={"train": 80, "dev": 40, "test": 40}, seed=1)
    assert run(home, head("split"), dataset="split").trials
    with pytest.raises(HeadError, match="split/dev"):
        run(home, head("split", "dev"), dataset="split")
    with pytest.raises(HeadError, match="split/dev"):
        run(home, head("split", select="best_dev", dev="dev"), dataset="split")
    # A query of both splits is a dev query that the head was trained on.
    train, dev = (home.collections / "split" / "qrels" / f"{one}.tsv" for one in ("train", "dev"))
    train.write_text(train.read_text() + dev.read_text().splitlines()[1] + "\n")
    with pytest.raises(HeadError, match="split/train"):
        run(home, head("split"), dataset="split")


def test_a_sample_is_tuned_without_heads_of_its_collection(
    home: Home, head: Callable[..., str], judged_collection: Callable[..., Path]
) -> None:
    name = "topics-pairs80-seed0"
    judged_collection(name, splits={"train": 80, "dev": 40, "test": 40}, seed=1)
    is_sample(home, name, "topics")
    for other in ("topics", "topics-pairs80-seed1"):
        with pytest.raises(HeadError, match="topics/train"):
            run(home, head(other), dataset=name)
    # Its own dev queries are not in its own train split.
    assert run(home, head(name), dataset=name).trials


def test_without_labels_no_head_knows_the_collection(home: Home, head: Callable[..., str]) -> None:
    for collection, split in (("topics", "train"), ("topics", "dev"), ("topics-pairs50-seed0", "train")):
        with pytest.raises(HeadError, match=f"nothing of any judgement of topics(.|\n)*topics/{split}"):
            run(home, head(collection, split), labels="none")


def test_a_collection_that_a_head_was_trained_on_does_not_choose(
    home: Home, head: Callable[..., str], judged_collection: Callable[..., Path]
) -> None:
    names = ("others", "others-pairs20-seed1", "thirds")
    for seed, name in enumerate(names, start=1):
        judged_collection(name, splits={"train": 60, "test": 20}, seed=seed)
    is_sample(home, "others-pairs20-seed1", "others")
    trained = head("others-pairs20-seed0")
    assert run(home, trained, labels="none").chosen_by == ["thirds/train"]
    for name in names[:2]:
        with pytest.raises(TrainingError, match=f"{name} cannot choose"):
            run(home, trained, labels="none", transfer=[name])
    assert run(home, head("elsewhere"), labels="none").chosen_by == ["others/train", "thirds/train"]


def test_a_collection_whose_titles_a_head_was_trained_on_does_not_choose(
    home: Home, head: Callable[..., str], judged_collection: Callable[..., Path]
) -> None:
    judged_collection("others", splits={"train": 60, "test": 20}, seed=1)
    for name in ("others", "topics"):
        folder = judged_collection(f"{name}-titles", splits={"train": 60, "test": 20}, seed=2)
        (folder / "collection.json").write_text(json.dumps({"titles_of": name}))
    with pytest.raises(TrainingError, match="others cannot choose"):
        run(home, head("others-titles"), labels="none", transfer=["others"])
    # Titles are no judgements, so a head may learn from those of the collection itself.
    assert run(home, head("topics-titles"), labels="none", transfer=["others"]).chosen_by == ["others/train"]


def test_what_the_chosen_head_was_trained_on_is_told_and_its_seeds_stay_one_row(
    home: Home, head: Callable[..., str], judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection("others", splits={"train": 60, "test": 20}, seed=1)
    trained = head("elsewhere")
    for rung in ("_feedback", "_whitening", "_closed_forms", "_nudges", "_linear_adapters", "_memories"):
        monkeypatch.setattr(ladder.Ladder, rung, lambda self: None)
    monkeypatch.setattr(ladder.Ladder, "_other_adapters", lambda self: None)

    def choose(kind: str) -> None:
        def chosen(trials: Sequence[Trial], dev: Dev) -> Trial:
            return next(one for one in trials if one.spec.dense.kind == kind and one.spec.bm25)

        monkeypatch.setattr("ragcun_cache.tuning.tune.choose", chosen)

    for labels, route, chosen_by in (("none", "zero-shot", "others"), ("train", "in-domain", "topics")):
        choose("head")
        with_head = run(home, trained, labels=labels, minutes=10.0).winner
        choose("raw")
        without = run(home, trained, labels=labels, minutes=10.0, seed=1).winner
        assert with_head is not None and without is not None
        own = TrainedOn(collection=chosen_by, split="train")
        assert with_head.system.trained_on == (own, TrainedOn(collection="elsewhere", split="train"))
        assert without.system.trained_on == (own,)
        assert (with_head.route, without.route) == (route, route)
        assert with_head.system.route is None
        store = ResultStore(home.results)
        (board,) = [one for one in build_leaderboards(store.all(), store) if one.route == route]
        (row,) = [one for one in board.rows if not one.raw]
        assert row.seeds == 2


def test_origins(home: Home, tiny_collection: Callable[..., Path]) -> None:
    folder = tiny_collection("drawn")
    (folder / "collection.json").write_text(json.dumps({"sample_of": "all"}))
    titles = tiny_collection("all-titles")
    (titles / "collection.json").write_text(json.dumps({"titles_of": "all"}))
    assert origin_of("drawn", home) == Origin("all", None)
    assert origin_of("all", home) == Origin("all", None)
    assert origin_of("gone-pairs10-seed0", home) == Origin("gone", None)
    assert origin_of("all-titles-pairs10-seed0", home) == Origin("all-titles", "all")
    assert origin_of("x", home, folder) == Origin("all", None)
