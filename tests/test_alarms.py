from __future__ import annotations

from typing import Any

import pytest

from ragcun_cache.alarms import alarms
from ragcun_cache.errors import RagcunCacheError
from ragcun_cache.heads.registry import build_head
from ragcun_cache.home import Home
from ragcun_cache.training.config import make_config
from ragcun_cache.training.diagnostics import measure_head
from ragcun_cache.training.pairs import load_training_data

HEALTHY = {
    "output_std": 0.02,
    "effective_rank": 400.0,
    "rank_limit": 768.0,
    "mean_cosine": 0.1,
    "in_batch_accuracy": 0.99,
    "in_batch_chance": 1 / 64,
    "raw_dev_ndcg@10": 0.5,
}


def table(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """A metrics table that gets better by 0.1 an epoch, with changes to its rows."""
    rows = [{"epoch": epoch, **HEALTHY, "dev_ndcg@10": 0.45 + 0.1 * epoch} for epoch in range(len(changes))]
    return [{**row, **change} for row, change in zip(rows, changes, strict=True)]


def test_a_healthy_table_raises_none() -> None:
    assert alarms(table({}, {}, {})) == []
    assert alarms([]) == []


def test_what_is_not_known_raises_none() -> None:
    assert alarms([{"epoch": 0}, {"epoch": 1}]) == []
    assert alarms([{"epoch": 0, **dict.fromkeys(HEALTHY)}, {"epoch": 1, **dict.fromkeys(HEALTHY)}]) == []


def test_an_alarm_names_the_first_epoch_its_figures_and_says_them() -> None:
    (alarm,) = alarms(table({}, {"output_std": 0.005}, {"output_std": 0.001}))
    assert (alarm.name, alarm.epoch) == ("scale collapse", 1)
    assert alarm.figures == {"output_std": 0.005, "output_std_at_start": 0.02}
    assert "0.25 of the 0.02 at the start" in alarm.text


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ({"output_std": 0.0066}, "scale collapse"),
        ({"output_std": 0.0067}, None),
        ({"effective_rank": 76.0}, "dimensional collapse"),
        ({"effective_rank": 77.0}, None),
        ({"mean_cosine": 0.991}, "dimensional collapse"),
        ({"mean_cosine": 0.989}, None),
        ({"in_batch_accuracy": 0.06}, "lost alignment"),
        ({"in_batch_accuracy": 0.07}, None),
        ({"residual_mean_first": 0.014, "residual_mean": 0.0046}, "residual collapse"),
        ({"residual_mean_first": 0.014, "residual_mean": 0.0047}, None),
        ({"dev_ndcg@10": 0.45, "raw_dev_ndcg@10": 0.4}, "no better than untrained"),
        ({"dev_ndcg@10": 0.47, "raw_dev_ndcg@10": 0.46}, None),
        ({"raw_dev_ndcg@10": 0.6}, "no better than raw"),
    ],
)
def test_every_alarm_at_its_threshold(last: dict[str, Any], name: str | None) -> None:
    assert [alarm.name for alarm in alarms(table({}, last))] == ([] if name is None else [name])


def test_alignment_in_the_middle_of_the_training_is_not_asked_for() -> None:
    assert alarms(table({}, {"in_batch_accuracy": 0.0}, {})) == []
    assert [alarm.epoch for alarm in alarms(table({"in_batch_accuracy": 0.0}, {}))] == [0]


def test_the_residual_is_compared_with_that_of_the_first_batch_wherever_it_stands() -> None:
    rows = table(
        {"residual_mean_first": None}, {"residual_mean_first": 0.014, "residual_mean": 0.006}, {"residual_mean": 0.001}
    )
    (alarm,) = alarms(rows)
    assert (alarm.name, alarm.epoch) == ("residual collapse", 2)
    assert alarms(table({}, {"residual_mean_first": 0.0, "residual_mean": 0.0})) == []


def test_the_kept_epoch_is_what_is_judged() -> None:
    rows = table({}, {}, {"dev_ndcg@10": 0.3})
    assert {alarm.name for alarm in alarms(rows)} == {"no better than untrained", "no better than raw"}
    assert alarms(rows, kept_epoch=1) == []
    assert {alarm.epoch for alarm in alarms(rows, kept_epoch=0)} == {0}


def test_a_head_that_was_never_trained_is_not_blamed_for_it() -> None:
    assert alarms(table({"raw_dev_ndcg@10": 0.9})) == []


@pytest.mark.parametrize("name", ["scifact", "nfcorpus", "msmarco-12k"])
def test_raw_vectors_of_real_collections_raise_none(name: str) -> None:
    """With the vectors in the home of this machine, $RAGCUN_HOME; skipped where it has none."""
    for arch in ("identity", "untrained"):
        config = make_config({"dataset": name, "arch": arch, "device": "cpu"})
        try:
            data = load_training_data(config, Home.default())
        except RagcunCacheError as missing:
            pytest.skip(str(missing))
        head = build_head(config.head_config(data.caches.passage.dim), seed=0)
        assert alarms([{"epoch": 0, **measure_head(head, data)}]) == []
