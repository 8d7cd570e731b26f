"""What a tuning ends with: the run of the chosen system, what is stored of it, and the head that is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.evaluation.candidates import describe_head
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.leaderboard import Row, build_leaderboards
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject
from ragcun_cache.evaluation.system import TrainedOn
from ragcun_cache.heads.store import HeadRecord, list_heads
from ragcun_cache.home import Home
from ragcun_cache.retrieval.bm25 import Bm25Index
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head
from ragcun_cache.tuning.config import TuneConfig
from ragcun_cache.tuning.data import Data
from ragcun_cache.tuning.fitted import Fitted
from ragcun_cache.tuning.ladder import Ladder, fusions
from ragcun_cache.tuning.record import list_tunings
from ragcun_cache.tuning.spec import Adapter, Feedback, Fusion, Memory, Ridge, SoftZca, Spec, TrainedHead
from ragcun_cache.tuning.tune import Tuned, tune

SPECS = [
    Spec(dense=Ridge(strength=1.0)),
    Spec(dense=SoftZca(exponent=0.1), feedback=Feedback(passages=1, weight=0.8)),
    Spec(bm25=Fusion.RECIPROCAL_RANK),
    Spec(dense=Ridge(strength=1.0), bm25=Fusion.CONVEX, dense_weight=0.6),
    Spec(bm25=Fusion.CONVEX, dense_weight=0.6, memory=Memory(temperature=0.1, evidence=30.0, weight=1.0)),
]


@pytest.fixture
def data(home: Home, judged_collection: Callable[..., Path]) -> Data:
    judged_collection(splits={"train": 60, "test": 100})
    collection = find_collection("topics", home)
    return Data(collection, open_pair(home.caches, collection), home, [])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many queries at once BM25 was asked."""
    asked: list[int] = []
    scores = Bm25Index.scores
    monkeypatch.setattr(Bm25Index, "scores", lambda self, texts: asked.append(len(texts)) or scores(self, texts))
    return asked


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_test_queries_are_ranked_a_few_at_a_time_with_the_same_result(
    data: Data, monkeypatch: pytest.MonkeyPatch, scored: list[int], spec: Spec
) -> None:
    subject = Subject.of(data.collection, data.pair, EvalConfig())
    fitted = Fitted(spec, data, data.judgements("train"))
    whole = fitted.rank(subject)
    uses_bm25 = bool(spec.bm25 or spec.feedback)
    assert scored == ([100] if uses_bm25 else [])
    for most, rows in ((100, [64, 36]), (40, [40, 40, 20]), (1, [1] * 100), (0, [1] * 100)):
        scored.clear()
        monkeypatch.setattr("ragcun_cache.tuning.data._MAX_SCORES", most * 150)
        found = fitted.rank(subject)
        assert scored == (rows if uses_bm25 else [])
        assert list(found) == list(whole) == subject.query_ids
        if most == 100 and spec.dense.kind == "raw":
            assert found == whole
        for one in whole:
            assert list(found[one]) == list(whole[one])
            assert np.allclose(list(found[one].values()), list(whole[one].values()), atol=1e-5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute pass between any two results."""
    minutes = iter(range(1000))

    class Clock:
        @staticmethod
        def now(zone: object) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(minutes))

    for module in ("evaluation.subject", "tuning.fitted"):
        monkeypatch.setattr(f"ragcun_cache.{module}.datetime", Clock)


def run_choosing(
    monkeypatch: pytest.MonkeyPatch, home: Home, spec: Spec, *, minutes: float = 1e-9, **settings: object
) -> Tuned:
    """Tune, whatever dev says, to ``spec``, which is one of the first rung."""

    def choose(trials, dev):
        return next(one for one in trials if one.spec == spec)

    monkeypatch.setattr("ragcun_cache.tuning.tune.choose", choose)
    config = TuneConfig.model_validate({"dataset": "topics", "minutes": minutes} | settings)
    return tune(config, home, ResultStore(home.results))


def tuned_row(home: Home) -> Row:
    store = ResultStore(home.results)
    (board,) = build_leaderboards(store.all(), store)
    (row,) = [one for one in board.rows if not one.raw]
    return row


HYBRID = Spec(bm25=Fusion.CONVEX, dense_weight=0.6)


@pytest.mark.usefixtures("data", "clock")
@pytest.mark.parametrize("labels", ["train", "none"])
def test_raw_that_was_kept_counts_in_the_row_of_its_recipe(
    home: Home, monkeypatch: pytest.MonkeyPatch, judged_collection: Callable[..., Path], labels: str
) -> None:
    judged_collection("others", splits={"train": 60, "test": 20}, seed=1)
    found = [
        run_choosing(monkeypatch, home, spec, seed=seed, labels=labels)
        for seed, spec in enumerate((HYBRID, Spec(), HYBRID, Spec()))
    ]
    assert [one.winner is None for one in found] == [False, True, False, True]
    assert [one.winner for one in list_tunings(home.tunings)] == [one.winner and one.winner.key for one in found]
    (cell,) = tuned_row(home).cells.values()
    values = [(one.winner or one.raw).metrics["ndcg@10"] for one in found]
    assert cell.seeds == 4 and cell.mean == pytest.approx(np.mean(values))
    kept = ResultStore(home.results).find(cell.results[1])
    assert kept is not None and kept.metrics == found[1].raw.metrics
    assert kept.route == found[0].winner.route and kept.cost.bytes == 0 and not kept.cost.index_rebuilt


def test_what_other_code_ranked_is_no_result_of_this_one(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TuneConfig.model_validate({"dataset": "topics"})

    def hashes() -> list[str]:
        return [Fitted(spec, data, None).system(config, ()).sha256 for spec in (Spec(), HYBRID)]

    raw, hybrid = hashes()
    monkeypatch.setattr("ragcun_cache.tuning.fitted.code_version", lambda: "another")
    assert hashes()[0] == raw and hashes()[1] != hybrid


@pytest.mark.usefixtures("data", "clock")
def test_seeds_that_other_code_tuned_are_another_row(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run_choosing(monkeypatch, home, HYBRID)
    monkeypatch.setattr("ragcun_cache.tuning.fitted.code_version", lambda: "another")
    run_choosing(monkeypatch, home, HYBRID, seed=1)
    store = ResultStore(home.results)
    (board,) = build_leaderboards(store.all(), store)
    assert [row.seeds for row in board.rows if not row.raw] == [1, 1]


@pytest.mark.usefixtures("data", "clock")
def test_the_row_shows_what_was_tuned_last(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for spec in (HYBRID, Spec(), HYBRID, HYBRID, Spec()):
        tuned = run_choosing(monkeypatch, home, spec)
        (cell,) = tuned_row(home).cells.values()
        assert cell.seeds == 1
        assert cell.mean == pytest.approx((tuned.winner or tuned.raw).metrics["ndcg@10"], rel=1e-12)
        keys.update(cell.results)
    assert tuned.raw.metrics != ResultStore(home.results).find(min(keys - set(cell.results))).metrics
    # What came out twice is kept once.
    assert len(keys) == 2 and len(ResultStore(home.results).all()) == 3


def test_the_head_that_is_kept_bears_its_own_dev_figure_not_that_of_the_fusion_it_was_chosen_in(
    data: Data, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Ridge(strength=1.0)
    monkeypatch.setattr(Ladder, "_first", lambda self: self._try(dense, fusions(dense)))
    fused = Spec(dense=dense, bm25=Fusion.CONVEX, dense_weight=0.3)
    tuned = run_choosing(monkeypatch, home, fused)
    figures = dict(tuned.trials)
    assert tuned.dev_ndcg == figures[fused] != figures[Spec(dense=dense)]
    assert tuned.head is not None and tuned.head.provenance["metrics"]["dev_ndcg@10"] == figures[Spec(dense=dense)]


def kept(data: Data, home: Home, *, ridge: bool = False, **settings: object) -> HeadRecord | None:
    config = TuneConfig.model_validate({"dataset": "topics"} | settings)
    train = data.judgements("train")
    if config.train_queries is not None:
        train = train.drawn(config.train_queries, config.seed)
    adapter = Adapter(config=AdapterConfig(epochs=1, seed=config.seed))
    fitted = Fitted(Spec(dense=Ridge(strength=1.0) if ridge else adapter), data, train)
    return fitted.save(config, (TrainedOn(collection="topics", split="train"),), 0.5, 1.0, home)


def test_adapters_of_several_seeds_are_of_one_row_and_those_of_fewer_labels_of_another(data: Data, home: Home) -> None:
    for ridge in (False, True):
        one, other, fewer = (
            kept(data, home, ridge=ridge, **settings) for settings in ({}, {"seed": 1}, {"train_queries": 30})
        )
        assert one is not None and other is not None and fewer is not None
        systems = [describe_head(record, home) for record in (one, other, fewer)]
        assert [system.seed for system in systems] == [0, 1, 0]
        assert systems[0].group == systems[1].group != systems[2].group


def test_an_adapter_says_which_vectors_it_learnt_from_as_trained_heads_do(data: Data, home: Home) -> None:
    trained = train_head(make_config({"dataset": "topics", "arch": "untrained", "device": "cpu"}), home).record
    record = kept(data, home)
    assert record is not None and record.provenance["caches"] == trained.provenance["caches"]


def test_a_head_that_was_given_is_not_kept_under_another_name(data: Data, home: Home) -> None:
    given = kept(data, home, ridge=True)
    assert given is not None
    known = Data(data.collection, data.pair, home, [given])
    fitted = Fitted(Spec(dense=TrainedHead(name=given.name)), known, data.judgements("train"))
    config = TuneConfig.model_validate({"dataset": "topics", "seed": 1})
    assert fitted.save(config, (TrainedOn(collection="topics", split="train"),), 0.5, 1.0, home) is None
    assert [record.name for record in list_heads(home.heads)] == [given.name]


def test_no_adapter_of_shuffled_judgements_is_kept(data: Data, home: Home) -> None:
    assert kept(data, home, shuffled=True) is None and not home.heads.exists()
