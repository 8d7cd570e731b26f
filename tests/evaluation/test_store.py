from __future__ import annotations

import logging
import multiprocessing
import re
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.metrics import METRICS, QueryScores
from ragcun_cache.evaluation.results import Result, SeenGold, Setting, metric_name
from ragcun_cache.evaluation.store import ResultStore, runs_frame
from ragcun_cache.evaluation.system import Cost, System, raw_head
from ragcun_cache.home import Home


def make(
    collection: str = "a", system: System | None = None, *, sample_of: str | None = None, mean: float = 0.25
) -> tuple[Result, QueryScores]:
    setting = Setting(
        collection=collection, sample_of=sample_of, split="test", encoder="e", model="model",
        query_fingerprint="q", query_content_sha256="c", passage_fingerprint="p", passage_content_sha256="c",
        qrels_sha256="r", config=EvalConfig(split="test"),
    )  # fmt: skip
    result = Result(
        setting=setting, system=system or raw_head(8), metrics={metric_name(one, sample_of): mean for one in METRICS},
        ndcg_identical_kept=None, counts=Counts(2, 0, 0, 0, 0), passages=9, in_base_training=False, seconds=1.0,
        date="2026-01-01T00:00:00+00:00", versions={"python": "3"}, machine={"cpu": "x", "cores": 2}, commit=None,
    )  # fmt: skip
    return result, QueryScores(["q0", "q1"], {one: np.array([2 * mean, 0.0]) for one in METRICS})


FUSION = System(name="fusion", sha256="f", arch="fusion", settings={"weight": 0.5}, route="zero-shot")


@pytest.fixture
def store(home: Home) -> ResultStore:
    return ResultStore(home.results)


def again(store: ResultStore) -> ResultStore:
    """The same store, as another process would open it."""
    return ResultStore(store.root)


def test_results_come_back_as_they_were(store: ResultStore) -> None:
    heads = {
        "a": raw_head(8),
        "b": FUSION,
    }
    for name, system in heads.items():
        result, scores = make(name, system, sample_of="whole" if name == "b" else None)
        result = result.model_copy(update={"cost": Cost(bytes=5), "ndcg_identical_kept": 1 / 3})
        store.save(result, scores)
        assert again(store).find(result.key) == result
        found = again(store).per_query(result)
        assert found.query_ids == scores.query_ids
        assert list(found.values) == list(result.metrics)
        assert again(store).gold_seen(result) is None
    assert [result.setting.collection for result in again(store).all()] == ["a", "b"]


def test_which_gold_was_seen_is_kept(store: ResultStore) -> None:
    seen = SeenGold(seen=1, unseen=1, repeated=0, seen_metrics={"ndcg@10": 0.5}, unseen_metrics={"ndcg@10": 0.0})
    result, scores = make()
    result = result.model_copy(update={"seen_gold": seen})
    store.save(result, scores, np.array([True, False]))
    mask = again(store).gold_seen(result)
    assert mask is not None
    assert mask.tolist() == [True, False]
    assert again(store).all() == [result]


def test_queries_come_in_the_order_of_their_ids_whatever_that_of_the_file(store: ResultStore) -> None:
    seen = SeenGold(seen=1, unseen=1, repeated=0, seen_metrics={"ndcg@10": 0.5}, unseen_metrics={"ndcg@10": 0.0})
    result, scores = make()
    result = result.model_copy(update={"seen_gold": seen})
    turned = QueryScores(scores.query_ids[::-1], {name: value_q[::-1] for name, value_q in scores.values.items()})
    store.save(result, turned, np.array([False, True]))
    assert pl.read_parquet(store.per_query_path(result.key))["query_id"].to_list() == ["q1", "q0"]
    found, mask = again(store).per_query(result), again(store).gold_seen(result)
    assert found.query_ids == ["q0", "q1"]
    for name, value_q in scores.values.items():
        assert found.values[name].tolist() == value_q.tolist()
    assert mask is not None and mask.tolist() == [True, False]


def test_any_parquet_reader_takes_the_files_as_one_table(store: ResultStore) -> None:
    for arguments in (("a", raw_head(8)), ("b", FUSION)):
        store.save(*make(*arguments))
    store.save(*make("cut", sample_of="whole"))
    runs, per_query = f"{store.root}/runs/*.parquet", f"{store.root}/per_query/*.parquet"
    frame = pl.read_parquet(runs).sort("collection")
    assert frame["collection"].to_list() == ["a", "b", "cut"]
    assert frame["ndcg@10"].to_list() == [0.25, 0.25, None]
    assert frame["ndcg@10[sample]"].to_list() == [None, None, 0.25]
    assert frame["route"].to_list() == [None, "zero-shot", None]
    assert frame["index"].to_list() == ["flat"] * 3
    assert frame.equals(runs_frame(store.all()).sort("collection"))
    joined = f"""
        select collection, avg(p."ndcg@10") from read_parquet('{runs}') join read_parquet('{per_query}') p using (key)
        where p."ndcg@10" is not null group by collection order by collection
    """
    assert duckdb.sql(joined).fetchall() == [("a", 0.25), ("b", 0.25)]


def test_the_snippets_of_the_page_run(
    store: ResultStore, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(*make("a", System(name="own", sha256="1", arch="lejepa", seed=3)))
    monkeypatch.chdir(home.root.parent)
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, {})
    shown = capsys.readouterr().out
    assert "0.25" in shown
    assert "q1" in shown


def test_a_result_is_never_replaced(store: ResultStore) -> None:
    result, scores = make()
    store.save(result, scores)
    before = {path: path.read_bytes() for path in store.root.rglob("*.parquet")}
    store.save(result.model_copy(update={"seconds": -1.0}), scores)
    again(store).save(result.model_copy(update={"seconds": -1.0}), scores)
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before
    assert len(before) == 2


def test_a_result_that_came_out_again_has_another_date_and_nothing_else(store: ResultStore) -> None:
    result, scores = make()
    store.save(result, scores)
    renewed = store.renew(result, "2026-02-01T00:00:00+00:00")
    assert renewed == result.model_copy(update={"date": "2026-02-01T00:00:00+00:00"})
    assert renewed.key == result.key and again(store).all() == [renewed]
    assert again(store).per_query(renewed).query_ids == scores.query_ids


def test_a_failed_write_leaves_no_result(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(results: list[Result]) -> None:
        raise OSError("no space left")

    result, scores = make()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("ragcun_cache.evaluation.store.runs_frame", fail)
        store.save(result, scores)
    assert again(store).all() == []
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{result.key}.parquet"]
    store.save(result, scores)
    assert again(store).all() == [result]


def _save_many(root: Path) -> None:
    for n in range(20):
        ResultStore(root).save(*make(f"collection{n}"))


def test_processes_that_write_the_same_results_at_once(store: ResultStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_many, args=(store.root,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(store.all()) == 20
    assert len([path for path in store.root.rglob("*") if path.is_file()]) == 40


@pytest.mark.parametrize("folder", ["runs", "per_query"])
@pytest.mark.parametrize("damage", ["cut", "gone", "another"])
def test_a_damaged_file_is_named_passed_over_and_replaced(
    store: ResultStore, caplog: pytest.LogCaptureFixture, folder: str, damage: str
) -> None:
    sound, damaged, other = make("a"), make("b"), make("c", mean=0.125)
    for one in (sound, damaged, other):
        store.save(*one)
    path = store.root / folder / f"{damaged[0].key}.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "another":
        path.write_bytes((store.root / folder / f"{other[0].key}.parquet").read_bytes())
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert again(store).all() == [sound[0], other[0]]
    if (folder, damage) != ("runs", "gone"):
        assert str(path) in caplog.text
        assert "run `ragcun-cache eval`" in caplog.text
    again(store).save(*damaged)
    assert again(store).all() == [sound[0], damaged[0], other[0]]


def test_a_result_of_another_version_is_passed_over(store: ResultStore, caplog: pytest.LogCaptureFixture) -> None:
    result, scores = make()
    store.save(result, scores)
    path = store.run_path(result.key)
    frame = pl.read_parquet(path)
    frame.with_columns(record=pl.col("record").str.replace('"schema_version": 2', '"schema_version": 9')).write_parquet(
        path
    )
    with caplog.at_level(logging.WARNING):
        assert again(store).all() == []
    assert "schema 9" in caplog.text


def test_results_of_the_older_format_are_mentioned_once(store: ResultStore, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0123", "4567"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "result.json").write_text("{}")
    store.save(*make())
    with caplog.at_level(logging.WARNING):
        assert len(store.all()) == len(store.all()) == 1
    assert caplog.text.count("2 results of an older format are not read") == 1
