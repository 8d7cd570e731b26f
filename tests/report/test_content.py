from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.alarms import alarms
from ragcun_cache.cli.main import app
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads.adapter import AdapterHead
from ragcun_cache.heads.store import list_heads, save_head
from ragcun_cache.home import Home
from ragcun_cache.report import content as content_module
from ragcun_cache.report.content import Report, build_report
from ragcun_cache.report.geometry import draw_sample, measure_geometry
from ragcun_cache.report.markdown import render_markdown
from ragcun_cache.report.provenance import ranges
from ragcun_cache.report.queries import TOP, shorten
from ragcun_cache.report.sources import Sources
from ragcun_cache.similarity import Similarity
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import METRICS_NAME
from ragcun_cache.training.seeds import parse_seeds


def test_every_figure_is_the_mean_of_stored_results(made: Report, results: list[Result], store: ResultStore) -> None:
    (board,) = made.content["boards"]
    assert board["rows"][0]["raw"]
    assert [row["seeds"] for row in board["rows"]] == [1, 2, 2]
    for row in board["rows"]:
        stored = [one for one in results if one.system.arch == row["arch"]]
        assert row["cells"]["hard/test"]["mean"] == pytest.approx(np.mean([one.metrics["ndcg@10"] for one in stored]))
    (place,) = made.content["queries"]
    for system in place["systems"]:
        stored = [one for one in results if one.system.label == system["label"]]
        scores_sq = [store.per_query(one).values["ndcg@10"] for one in stored]
        np.testing.assert_allclose(system["scores"], np.mean(scores_sq, axis=0), atol=1e-5)


def test_passages_are_those_that_the_evaluation_ranked(made: Report, evaluated: Home) -> None:
    (place,) = made.content["queries"]
    assert len(place["detail"]) == len(place["ids"]) == 30
    for number, detail in place["detail"].items():
        query = int(place["ids"][int(number)][1:])
        assert set(detail["top"]) == {"raw", "s0", "s1"}
        for top in detail["top"].values():
            assert len(top) == TOP
            assert [score for _, score in top] == sorted((score for _, score in top), reverse=True)
        assert [row["grade"] for row in detail["ranks"]] == [2, 1]
        assert place["passages"][detail["ranks"][0]["passage"]][0] == f"p{query}"
        for row in detail["ranks"]:
            for key, top in detail["top"].items():
                ranked = [passage for passage, _ in top]
                if row["passage"] in ranked:
                    assert row[key] == ranked.index(row["passage"]) + 1
                    assert detail["gold"][str(row["passage"])] == row["grade"]
                else:
                    assert row[key] > TOP
    assert all(len(text) <= 302 for _, _, text in place["passages"])


def test_scores_of_a_query_follow_from_the_ranks_shown(made: Report) -> None:
    (place,) = made.content["queries"]
    for number, detail in place["detail"].items():
        gains = {row["raw"]: row["grade"] for row in detail["ranks"] if row["raw"] <= 10}
        dcg = sum(grade / np.log2(rank + 1) for rank, grade in gains.items())
        assert place["raw"][int(number)] == pytest.approx(dcg / (2 + 1 / np.log2(3)), abs=1e-5)


def test_curves_have_every_epoch_and_the_range_of_the_seeds(made: Report, evaluated: Home) -> None:
    (run,) = made.content["training"]["runs"]
    assert (run["seeds"], run["trained_on"]) == (2, "hard")
    curve = run["measures"]["dev_ndcg@10"]
    assert curve["epochs"] == [0, 1, 2]
    last = [
        record.provenance["metrics"]["dev_ndcg@10"]
        for record in list_heads(evaluated.heads)
        if record.config.arch == "lejepa"
    ]
    assert (curve["low"][2], curve["high"][2]) == (min(last), max(last))
    assert run["measures"]["relative_residual"]["mean"][0] == 0.0
    assert run["measures"]["loss_predictive"]["epochs"] == [1, 2]


def test_alarms_are_those_of_the_metrics_tables(made: Report, evaluated: Home) -> None:
    (run,) = made.content["training"]["runs"]
    raised = [
        alarm.name
        for record in list_heads(evaluated.heads)
        if record.config.arch == "lejepa"
        for alarm in alarms(polars.read_parquet(record.folder / METRICS_NAME).to_dicts(), record.provenance["epoch"])
    ]
    assert raised
    assert {alarm["name"]: alarm["seeds"] for alarm in run["alarms"]} == Counter(raised)


def test_commands_train_the_same_heads_again(made: Report, evaluated: Home, results: list[Result]) -> None:
    lines = [line for line in made.content["provenance"]["commands"] if " train-head " in line]
    records = {json.dumps(record.provenance["train"], sort_keys=True) for record in list_heads(evaluated.heads)}
    again = set()
    for line in lines:
        seeds, settings = line.split(" --seeds ")[1].split(" --config /dev/stdin <<< ")
        for seed in parse_seeds(seeds):
            config = make_config({**json.loads(settings.strip("'")), "seed": seed})
            again.add(json.dumps(config.model_dump(mode="json"), sort_keys=True))
    assert again == records
    (evaluate,) = [line for line in made.content["provenance"]["commands"] if " eval " in line]
    encoder = results[0].setting.encoder
    assert evaluate == f"ragcun-cache eval --dataset hard --encoder {encoder} --split test"


def test_what_is_gone_is_left_out_and_named(evaluated: Home, tmp_path, results: list[Result]) -> None:
    home = Home(tmp_path / "data")
    shutil.copytree(evaluated.results, home.results)
    made = build_report(results, ResultStore(home.results), home, written_by="x")
    assert made.content["geometry"] == []
    assert made.content["training"]["runs"] == []
    (place,) = made.content["queries"]
    assert not place["detail"]
    assert len(place["systems"][0]["scores"]) == 30
    assert any("hard/test" in note for note in made.content["left_out"])
    json.dumps(made.content, allow_nan=False)
    assert "What was left out" in render_markdown(made)


def test_a_changed_collection_shows_no_texts_of_another_version(evaluated: Home, tmp_path, results, store) -> None:
    home = Home(tmp_path / "data")
    shutil.copytree(evaluated.root, home.root)
    with (home.collections / "hard" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "new", "text": "new"}\n')
    made = build_report(results, ResultStore(home.results), home, written_by="x")
    assert not made.content["queries"][0]["detail"]


def test_passages_make_way_where_there_is_no_room(
    evaluated: Home, results: list[Result], store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_module, "MAX_BYTES", 30_000)
    made = build_report(results, store, evaluated, written_by="x")
    (place,) = made.content["queries"]
    assert 0 < len(place["detail"]) < 30
    assert len(json.dumps([place["detail"], place["texts"], place["passages"]])) <= 30_000
    differences = np.max([np.abs(np.subtract(one["scores"], place["raw"])) for one in place["systems"]], axis=0)
    shown = [int(number) for number in place["detail"]]
    assert min(differences[shown]) >= max(np.delete(differences, shown))
    assert any("differ least" in note for note in made.content["left_out"])


def test_markdown_has_the_same_figures(made: Report) -> None:
    text = render_markdown(made)
    (board,) = made.content["boards"]
    for row in board["rows"]:
        assert f"{row['cells']['hard/test']['mean']:.4f}" in text
    for title in ("Leaderboard", "What quality costs", "After the last epoch", "Geometry of hard/test", "come from"):
        assert title in text


@pytest.mark.parametrize("similarity", list(Similarity))
def test_histograms_are_of_the_pairs_themselves(evaluated: Home, results: list[Result], store, similarity) -> None:
    subject = Sources(results, store, evaluated).subject(results[0].setting)
    assert subject is not None
    sample = draw_sample(subject)
    query_nd, passage_nd = subject.pair.query.array().astype(float), subject.pair.passage.array().astype(float)

    def score(query: int, passage: int) -> float:
        q_d, p_d = 2 * query_nd[query], 2 * passage_nd[passage]
        by_name = {
            "cosine": q_d @ p_d / np.sqrt(q_d @ q_d * (p_d @ p_d)),
            "dot": q_d @ p_d,
            "l2": -np.square(q_d - p_d).sum(),
        }
        return float(by_name[similarity])

    found = measure_geometry(subject, sample, lambda vectors_nd, norms_n, role: 2 * vectors_nd, similarity)
    relevant = [score(*pair) for pair in sample.relevant_p2.tolist()]
    random = [score(*pair) for pair in sample.random_p2.tolist()]
    assert len(relevant) == 60
    assert found["separation"] == pytest.approx((np.mean(relevant) - np.mean(random)) / np.std(random), rel=1e-4)
    assert len(relevant) - 2 <= sum(found["histogram"]["relevant"]) <= len(relevant)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_are_what_seeds_reads(numbers: set[int]) -> None:
    assert parse_seeds(ranges(sorted(numbers))) == sorted(numbers)


@given(st.text(), st.integers(1, 40))
def test_a_shortened_text_is_short_and_on_one_line(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit + 2
    assert "\n" not in short
    assert short == " ".join(text.split()) or short.endswith(" …")


def test_a_collection_with_the_raw_encoder_alone_has_no_queries_to_compare(
    results: list[Result], store, evaluated: Home
) -> None:
    raw = [one for one in results if one.system.is_raw]
    made = build_report(raw, store, evaluated, written_by="x")
    assert made.content["queries"] == [] and made.content["boards"]


def test_a_judged_query_without_text_is_called_so(evaluated: Home, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "data")
    shutil.copytree(evaluated.root, home.root)
    collection = home.collections / "hard"
    with (collection / "qrels" / "test.tsv").open("a") as qrels:
        qrels.write("unknown\tp1\t1\n")
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    assert CliRunner().invoke(app, ["eval", "--dataset", "hard"]).exit_code == 0
    store = ResultStore(home.results)
    (newest,) = {one.setting.sha256 for one in store.all() if one.counts.judged == 31}
    made = build_report([one for one in store.all() if one.setting.sha256 == newest], store, home, written_by="x")
    (place,) = made.content["queries"]
    assert "(not among the queries)" in place["texts"].values()


def test_an_adapter_of_a_tuning_has_no_training_command(
    evaluated: Home, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "data")
    shutil.copytree(evaluated.root, home.root)
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    record = next(one for one in list_heads(home.heads) if one.config.arch == "lejepa")
    adapter = AdapterHead(AdapterConfig().head_config(16))
    train = {"kind": "ridge", "strength": 1.0, "train": "train", "epochs": 1}
    save_head(home.heads / "adapter", adapter, record.provenance | {"train": train})
    assert CliRunner().invoke(app, ["eval", "--dataset", "hard", "--head", "adapter"]).exit_code == 0
    store = ResultStore(home.results)
    made = build_report(store.all(), store, home, written_by="x")
    told = [line for line in made.content["provenance"]["commands"] if "tune learnt it" in line]
    assert len(told) == 1 and told[0].startswith("# ")
