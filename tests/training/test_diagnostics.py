from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ragcun_cache.alarms import alarms
from ragcun_cache.cache import CachePair
from ragcun_cache.collections import Collection
from ragcun_cache.heads.config import HeadConfig
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.registry import build_head
from ragcun_cache.home import Home
from ragcun_cache.similarity import Similarity
from ragcun_cache.training.config import TrainConfig, make_config
from ragcun_cache.training.diagnostics import measure_head
from ragcun_cache.training.pairs import TrainingData, load_training_data

DIM = 96


class Planted(Head):
    """A head whose fault is known."""

    def __init__(self, fault: Callable[[Tensor], Tensor], similarity: Similarity = Similarity.COSINE) -> None:
        super().__init__(HeadConfig(arch="identity", in_dim=DIM, out_dim=DIM, similarity=similarity, init="identity"))
        self.fault = fault

    def encode_query(self, x_bd: Tensor) -> Tensor:
        return self.fault(x_bd)

    def encode_passage(self, x_bd: Tensor) -> Tensor:
        return self.fault(x_bd)


@pytest.fixture
def data(home: Home, cached_collection: Callable[..., tuple[Collection, CachePair]]) -> Callable[..., TrainingData]:
    def load(splits: dict[str, int] | None = None, n_passages: int = 300, **settings: Any) -> TrainingData:
        splits = splits or {"train": 200, "dev": 40, "test": 5}
        cached_collection(n_passages=n_passages, splits=splits, dim=DIM)
        return load_training_data(config_of(**settings), home)

    return load


def config_of(**settings: Any) -> TrainConfig:
    return make_config({"dataset": "tiny", "device": "cpu", "arch": "lejepa", **settings})


def rows_of(data: TrainingData, *heads: Head) -> list[dict[str, Any]]:
    return [{"epoch": epoch, **measure_head(head, data)} for epoch, head in enumerate(heads)]


def names(rows: list[dict[str, Any]]) -> set[str]:
    return {alarm.name for alarm in alarms(rows)}


def raw() -> Planted:
    return Planted(lambda x_bd: x_bd)


def constant() -> Planted:
    return Planted(lambda x_bd: torch.full_like(x_bd, 0.3))


def of_rank(rank: int) -> Planted:
    basis_dr = torch.linalg.qr(torch.randn(DIM, rank, generator=torch.Generator().manual_seed(0)))[0]
    return Planted(lambda x_bd: x_bd @ basis_dr @ basis_dr.T)


@pytest.mark.parametrize("similarity", list(Similarity))
@pytest.mark.parametrize("value", [0.0, 0.3, 1e-30, 1e15])
def test_a_constant_output_gives_numbers_or_nulls(
    data: Callable[..., TrainingData], value: float, similarity: Similarity
) -> None:
    head = Planted(lambda x_bd: torch.full_like(x_bd, value), similarity)
    measured = measure_head(head, data())
    assert all(figure is None or math.isfinite(figure) for figure in measured.values())
    assert (measured["effective_rank"], measured["iso_score"]) == (0.0, None)
    assert measured["in_batch_accuracy"] == pytest.approx(measured["in_batch_chance"])
    assert measured["output_std"] == pytest.approx(0.0)


def test_raw_is_its_own_reference_and_raises_no_alarm(data: Callable[..., TrainingData]) -> None:
    (row,) = rows_of(data(), raw())
    assert row["top10_overlap"] == 1.0
    assert row["dev_ndcg@10"] == row["raw_dev_ndcg@10"]
    assert row["relative_residual"] == 0.0
    assert row["mean_norm"] == pytest.approx(1.0)
    assert row["in_batch_accuracy"] > 0.9
    assert row["in_batch_chance"] == pytest.approx(1 / 64)
    assert alarms([row]) == []
    assert all(value is not None for value in row.values())


def test_a_raw_head_of_the_registry_and_untrained_ones_raise_none(data: Callable[..., TrainingData]) -> None:
    loaded = data()
    for arch in ("identity", "untrained"):
        assert alarms(rows_of(loaded, build_head(config_of(arch=arch).head_config(DIM), seed=0))) == []


def test_planted_collapses_are_named(data: Callable[..., TrainingData]) -> None:
    loaded = data()
    assert {"scale collapse", "dimensional collapse", "lost alignment"} <= names(rows_of(loaded, raw(), constant()))
    assert "dimensional collapse" in names(rows_of(loaded, raw(), of_rank(5)))
    assert "dimensional collapse" in names(rows_of(loaded, of_rank(5)))
    shrunk = Planted(lambda x_bd: 0.2 * x_bd)
    assert names(rows_of(loaded, raw(), shrunk)) == {"scale collapse", "no better than untrained", "no better than raw"}
    apart = Planted(lambda x_bd: 0.02 * x_bd + 1)
    assert "dimensional collapse" in names(rows_of(loaded, apart))


def test_shuffled_pairs_are_named_at_the_start(data: Callable[..., TrainingData]) -> None:
    loaded = data()
    passage_p = np.random.default_rng(0).permutation(loaded.train_p2[:, 1])
    shuffled = dataclasses.replace(loaded, train_p2=np.stack([loaded.train_p2[:, 0], passage_p], axis=1))
    (alarm,) = alarms(rows_of(shuffled, raw()))
    assert (alarm.name, alarm.epoch) == ("lost alignment", 0)


def test_two_heads_that_know_nothing_of_each_other_have_lost_the_alignment(data: Callable[..., TrainingData]) -> None:
    class Apart(Planted):
        def encode_query(self, x_bd: Tensor) -> Tensor:
            return x_bd @ torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1))

    assert "lost alignment" in names(rows_of(data(), Apart(lambda x_bd: x_bd)))


def test_without_dev_queries_train_queries_are_watched(data: Callable[..., TrainingData]) -> None:
    loaded = dataclasses.replace(data(), dev_qrels={})
    measured = measure_head(raw(), loaded)
    assert len(loaded.reference.query_ids) == 200
    assert (measured["dev_ndcg@10"], measured["raw_dev_ndcg@10"]) == (None, None)
    assert measured["top10_overlap"] == 1.0
    assert measured["hubness_skewness"] is not None


def test_a_dev_query_without_a_text_scores_0_as_in_eval(data: Callable[..., TrainingData], home: Home) -> None:
    whole = measure_head(raw(), data())
    with (home.collections / "tiny" / "qrels" / "dev.tsv").open("a") as qrels:
        qrels.write("nowhere\tp3\t1\n")
    with_missing = measure_head(raw(), load_training_data(config_of(), home))
    assert (whole["dev_queries"], with_missing["dev_queries"]) == (40, 41)
    assert whole["dev_ndcg@10"] > 0
    assert with_missing["dev_ndcg@10"] == pytest.approx(whole["dev_ndcg@10"] * 40 / 41)
    (home.collections / "tiny" / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nnowhere\tp3\t1\n")
    assert measure_head(raw(), load_training_data(config_of(), home))["dev_ndcg@10"] == 0.0


def test_without_judged_queries_there_is_geometry(data: Callable[..., TrainingData]) -> None:
    loaded = data(splits={"test": 20}, arch="identity")
    (row,) = rows_of(loaded, raw())
    undefined = {name for name, value in row.items() if value is None}
    assert undefined == {
        "dev_ndcg@10",
        "raw_dev_ndcg@10",
        "top10_overlap",
        "hubness_skewness",
        "anti_hub_share",
        "in_batch_accuracy",
        "in_batch_chance",
        "alignment",
        "query_passage_gap",
    }
    assert alarms([row]) == []


def test_the_same_rows_are_looked_at_and_raw_searches_once(
    data: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = data()
    first = measure_head(raw(), loaded)
    monkeypatch.setattr("ragcun_cache.training.pairs.make_reference", None)
    assert measure_head(raw(), loaded) == first


def test_rows_are_whole_batches_of_distinct_pairs(data: Callable[..., TrainingData]) -> None:
    reference = data().reference
    assert len(reference.pair_p2) == 192
    assert len(np.unique(reference.pair_p2[:, 0])) == 192
    assert len(np.unique(reference.passage_n)) == 300
