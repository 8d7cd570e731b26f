from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import typer
from click.testing import Result as Outcome
from typer.testing import CliRunner

from ragcun_cache.cache import CachePair
from ragcun_cache.cli.eval import evaluate
from ragcun_cache.cli.leaderboard import leaderboard
from ragcun_cache.collections import Collection
from ragcun_cache.collections.collection import open_collection
from ragcun_cache.collections.sample import sample_pairs
from ragcun_cache.errors import CollectionError, ConfigError, EvaluationError, HeadError
from ragcun_cache.evaluation.candidates import describe_head
from ragcun_cache.heads import own as own_heads
from ragcun_cache.heads.store import read_record
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.training.code import code_version
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head

app = typer.Typer()
app.command("eval")(evaluate)
app.command()(leaderboard)


def run(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def cached(
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., None]:
    """Make a small collection with its caches, in the home that the commands will use."""
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    monkeypatch.setenv("COLUMNS", "160")

    def make(name: str = "tiny", dim: int = 32) -> None:
        cached_collection(name, dim=dim, noise=3.0)

    return make


def untrained(home: Home, seed: int, dataset: str = "tiny") -> str:
    config = make_config({"arch": "untrained", "dataset": dataset, "out_dim": 16, "seed": seed})
    return train_head(config, home).record.name


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    (board,) = json.loads(outcome.stdout)["leaderboards"]
    found: list[dict[str, Any]] = board["rows"]
    return found


def test_every_head_that_fits_is_evaluated_after_raw(home: Home, cached: Callable[..., None], tmp_path: Path) -> None:
    cached()
    for seed in (0, 1):
        untrained(home, seed)
    markdown = tmp_path / "table.md"
    outcome = run("eval", "--dataset", "tiny", "--json", "--markdown", str(markdown))
    assert [(row["label"], row["seeds"]) for row in rows(outcome)] == [("raw encoder", 1), ("untrained random 16d", 2)]
    assert len(list((home.results / "runs").iterdir())) == len(list((home.results / "per_query").iterdir())) == 3
    written = markdown.read_text()
    assert "| raw encoder |" in written
    for origin in ("- seeds of untrained random 16d: ", "- machine: cpu ", "- versions: python ", "- commit: "):
        assert origin in written


def test_a_second_eval_loads_no_head(home: Home, cached: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    cached()
    untrained(home, 0)
    first = run("eval", "--dataset", "tiny", "--json")

    def refuse(folder: Path) -> None:
        raise AssertionError("the head was loaded again")

    monkeypatch.setattr("ragcun_cache.evaluation.candidates.load_head", refuse)
    assert run("eval", "--dataset", "tiny", "--json").stdout == first.stdout


def test_queries_that_were_trained_on_are_noted_and_unseen_gold_is_shown(
    home: Home, cached: Callable[..., None]
) -> None:
    cached()
    qrels = home.collections / "tiny" / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + "q3\tp3\t1\n")
    train_head(make_config({"arch": "isotropy", "dataset": "tiny", "out_dim": 16, "epochs": 1}), home)
    outcome = run("eval", "--dataset", "tiny", "--json")
    assert "tiny/test: 1 judged queries have the id or the text of one that tiny-isotropy" in outcome.stderr
    (board,) = json.loads(outcome.stdout)["leaderboards"]
    assert board["route"] == "in-domain"
    (seen, unseen) = board["rows"][1]["cells"]["tiny/test"]["gold"]
    assert (seen["queries"], unseen["queries"]) == (1, 15)


def test_a_head_that_was_trained_on_the_test_split_is_refused(home: Home, cached: Callable[..., None]) -> None:
    cached()
    config = make_config({"arch": "isotropy", "dataset": "tiny", "out_dim": 16, "epochs": 1})
    name = train_head(config, home).record.name
    record = json.loads((home.heads / name / "head.json").read_text())
    _rewrite(home.heads / name, train=record["train"] | {"train": "test"})
    with pytest.raises(EvaluationError, match="trained or chosen by the test split of tiny"):
        run("eval", "--dataset", "tiny", "--head", name)


def test_a_head_is_not_evaluated_on_the_split_that_it_was_trained_on(home: Home, cached: Callable[..., None]) -> None:
    cached()
    name = train_head(
        make_config({"arch": "isotropy", "dataset": "tiny", "out_dim": 16, "epochs": 1}), home
    ).record.name
    with pytest.raises(EvaluationError, match="trained or chosen by the train split of tiny"):
        run("eval", "--dataset", "tiny", "--split", "train", "--head", name)
    outcome = run("eval", "--dataset", "tiny", "--split", "train", "--json")
    assert f"note: {name} was trained or chosen by the train split of tiny: it is left out" in outcome.stderr
    assert [row["label"] for row in rows(outcome)] == ["raw encoder"]


def test_a_head_is_not_evaluated_on_the_dev_split_that_nobody_named_but_that_chose_its_epoch(
    home: Home, cached: Callable[..., None]
) -> None:
    cached()
    settings = {"arch": "isotropy", "dataset": "tiny", "out_dim": 16, "epochs": 1}
    watched, chosen = (
        train_head(make_config({**settings, "select": select}), home).record.name for select in ("last", "best_dev")
    )
    assert rows(run("eval", "--dataset", "tiny", "--split", "dev", "--head", watched, "--json"))[1]["seeds"] == 1
    assert describe_head(read_record(home.heads / watched), home).code == code_version()
    with pytest.raises(EvaluationError, match="trained or chosen by the dev split of tiny"):
        run("eval", "--dataset", "tiny", "--split", "dev", "--head", chosen)


def test_a_head_chosen_on_the_dev_queries_of_a_sample_knows_no_dev_split_that_the_whole_has_not(
    home: Home, cached: Callable[..., None]
) -> None:
    cached()
    (home.collections / "tiny" / "qrels" / "dev.tsv").unlink()
    settings = {"arch": "isotropy", "dataset": "tiny", "out_dim": 16, "epochs": 1, "pairs": 20, "select": "best_dev"}
    record = train_head(make_config(settings), home).record
    sample = "tiny-pairs20-seed0"
    known = [(one.collection, one.split) for one in describe_head(record, home).trained_on]
    assert known == [(sample, "train"), (sample, "dev"), ("tiny", "train")]
    found = rows(run("eval", "--dataset", "tiny", "--head", record.name, "--json"))
    assert found[1]["cells"]["tiny/test"]["gold"], "how much of the gold was seen is told"


@pytest.mark.parametrize("renamed", [False, True])
def test_a_head_trained_on_a_sample_by_its_own_name_is_in_domain_on_the_whole(
    home: Home, cached: Callable[..., None], cache_of: Callable[..., Path], renamed: bool
) -> None:
    cached()
    sample = sample_pairs(open_collection(home.collections / "tiny", "tiny"), 30, 0, home)
    if renamed:
        sample = open_collection(sample.folder.rename(home.collections / "part"), "part")
    ids = {role: [one for batch in sample.texts(role) for one in batch.ids] for role in Role}
    rng = np.random.default_rng(0)
    for role, role_ids in ids.items():
        rows_nd = rng.normal(size=(len(role_ids), 32))
        unit_nd = (rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)).astype(np.float16)
        cache_of(home.caches, sample.name, role, role_ids, unit_nd, content_sha256=sample.content_sha256(role))
    config = make_config({"arch": "isotropy", "dataset": sample.name, "out_dim": 16, "epochs": 1})
    record = train_head(config, home).record
    (board,) = json.loads(run("eval", "--dataset", "tiny", "--head", record.name, "--json").stdout)["leaderboards"]
    assert board["route"] == "in-domain"
    elsewhere = [one.collection for one in describe_head(record, Home(home.root / "elsewhere")).trained_on]
    assert elsewhere == ([sample.name] if renamed else [sample.name, "tiny"])


def test_a_head_on_a_folder_is_described_without_its_path(home: Home, cached: Callable[..., None]) -> None:
    cached()
    given = str(home.collections / "tiny")
    config = make_config({"arch": "isotropy", "dataset": given, "pairs": 30, "epochs": 1})
    assert config.dataset == given
    assert describe_head(train_head(config, home).record, home).settings["dataset"] == "tiny"


def test_a_run_file_can_be_scored_by_trec_eval_and_is_written_for_stored_results_too(
    home: Home, cached: Callable[..., None], tmp_path: Path
) -> None:
    cached()
    untrained(home, 0)
    first = json.loads(run("eval", "--dataset", "tiny", "--json").stdout)["results"]
    again = run("eval", "--dataset", "tiny", "--json", "--save-run", str(tmp_path / "runs"))
    assert json.loads(again.stdout)["results"] == first
    qrels = open_collection(home.collections / "tiny", "tiny").qrels("test")
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
    for result in first:
        (path,) = (tmp_path / "runs").glob(f"tiny__test-{result['system']['name']}-{result['key']}.run")
        lines = [line.split() for line in path.read_text().splitlines()]
        assert [int(line[3]) for line in lines[:100]] == list(range(1, 101))
        assert {(len(line), line[1]) for line in lines} == {(6, "Q0")}
        with path.open() as handle:
            scores = judge.evaluate(pytrec_eval.parse_run(handle))
        mean = sum(one["ndcg_cut_10"] for one in scores.values()) / len(qrels)
        assert mean == pytest.approx(result["metrics"]["ndcg@10"], abs=1e-12)


def test_raw_is_there_even_if_one_head_is_named(home: Home, cached: Callable[..., None]) -> None:
    cached()
    name = untrained(home, 0)
    untrained(home, 1)
    for wanted in (name, str(home.heads / name), "*seed0*", "identity"):
        found = rows(run("eval", "--dataset", "tiny", "--head", wanted, "--json"))
        assert found[0]["raw"]
        assert [row["seeds"] for row in found[1:]] == ([] if wanted == "identity" else [1])


def test_a_named_head_of_another_encoder_is_refused_by_name(home: Home, cached: Callable[..., None]) -> None:
    cached("tiny")
    cached("wide", dim=48)
    name = untrained(home, 0, "wide")
    with pytest.raises(EvaluationError, match=f"head {name} does not fit") as caught:
        run("eval", "--dataset", "tiny", "--head", name)
    assert (caught.value.expected, caught.value.found) == ("48 dimensions", "32 dimensions")
    outcome = run("eval", "--dataset", "tiny")
    assert f"note: head {name} does not fit" in outcome.stderr
    assert "untrained" not in outcome.stdout


_OWN = """
import torch
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.own import register_head

class Turned(Head):
    def __init__(self, config):
        super().__init__(config)
        self.turn = torch.nn.Parameter(torch.eye(config.in_dim))

    def encode_query(self, x_bd):
        return x_bd @ self.turn

    def encode_passage(self, x_bd):
        return x_bd

register_head("turned", Turned)
"""


def test_a_head_whose_file_was_edited_is_left_out_or_refused_if_it_is_named(
    home: Home, cached: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached()
    source = tmp_path / "turned.py"
    source.write_text(_OWN)
    monkeypatch.setattr(own_heads, "_registered", {})
    monkeypatch.setattr(own_heads, "_loaded", {})
    monkeypatch.setenv(own_heads.VARIABLE, str(source))
    config = make_config({"arch": "turned", "dataset": "tiny", "init": "identity", "epochs": 0})
    name = train_head(config, home).record.name
    assert [row["label"] for row in rows(run("eval", "--dataset", "tiny", "--json"))][1:] == ["turned identity 32d"]
    source.write_text(_OWN.replace("x_bd @ self.turn", "x_bd @ self.turn.T"))
    outcome = run("eval", "--dataset", "tiny", "--json")
    assert f"note: the file that registers turned was edited since head {name} was trained: it is left out" in (
        outcome.stderr
    )
    assert [row["label"] for row in rows(outcome)] == ["raw encoder"]
    with pytest.raises(HeadError, match=f"edited since head {name} was trained"):
        run("eval", "--dataset", "tiny", "--head", name)


def _rewrite(folder: Path, **changes: object) -> None:
    record = folder / "head.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


def test_a_head_of_another_encoder_with_the_same_dim_is_refused(home: Home, cached: Callable[..., None]) -> None:
    cached()
    name = untrained(home, 0)
    _rewrite(home.heads / name, encoder="0123456789abcdef")
    with pytest.raises(EvaluationError, match="another encoder"):
        run("eval", "--dataset", "tiny", "--head", name)


def test_a_head_whose_training_did_not_end_is_only_evaluated_by_name(home: Home, cached: Callable[..., None]) -> None:
    cached()
    name, _ = untrained(home, 0), untrained(home, 1)
    _rewrite(home.heads / name, complete=False, epoch=2)
    outcome = run("eval", "--dataset", "tiny", "--json")
    assert f"note: the training of {name} did not end: it is left out" in outcome.stderr
    assert rows(outcome)[1]["seeds"] == 1
    named = rows(run("eval", "--dataset", "tiny", "--head", "*", "--json"))
    assert sorted(row["label"] for row in named[1:]) == [
        "untrained random 16d",
        "untrained random 16d, stopped_after_epoch=2",
    ]


def test_an_index_prints_what_it_costs_and_is_part_of_the_key(home: Home, cached: Callable[..., None]) -> None:
    cached()
    exact = json.loads(run("eval", "--dataset", "tiny", "--json").stdout)["results"][0]
    outcome = run("eval", "--dataset", "tiny", "--json", "--index", "hnsw:m=4,ef_search=110")
    approximate = json.loads(outcome.stdout)["results"][0]
    assert exact["key"] != approximate["key"]
    assert approximate["setting"]["config"]["index"] == "hnsw:ef_construction=200,ef_search=110,m=4"
    found = approximate["against_exact"]
    assert 0.9 < found["recall"] <= 1.0
    assert found["ndcg_difference"] == pytest.approx(approximate["metrics"]["ndcg@10"] - exact["metrics"]["ndcg@10"])
    assert f"recall@10 {found['recall']:.4f} of exact search" in outcome.stderr
    both = json.loads(run("leaderboard", "--json").stdout)["leaderboards"]
    assert [board["index"] for board in both] == ["flat", approximate["setting"]["config"]["index"]]
    with pytest.raises(ConfigError, match="unknown index 'hsnw'"):
        run("eval", "--dataset", "tiny", "--index", "hsnw")


def test_collections_by_comma_or_repeated_are_columns_of_one_table(home: Home, cached: Callable[..., None]) -> None:
    cached("one")
    cached("two")
    comma = run("eval", "--dataset", "one,two", "--json").stdout
    assert run("eval", "--dataset", "one", "--dataset", "two", "--json").stdout == comma
    assert [column["title"] for column in json.loads(comma)["leaderboards"][0]["columns"]] == ["one/test", "two/test"]


def test_a_split_may_be_chosen_and_is_part_of_the_title(cached: Callable[..., None]) -> None:
    cached()
    assert "tiny/dev" in run("eval", "--dataset", "tiny", "--split", "dev").stdout


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (("--dataset", "tiny", "--split", "tset"), CollectionError, "test"),
        (("--dataset", "tinny"), CollectionError, "tiny"),
        (("--dataset", "tiny", "--head", "nope"), EvaluationError, "untrained-random-16d-seed0"),
        (("--dataset", "tiny", "--device", "gpu"), ConfigError, "cpu"),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(
    home: Home, cached: Callable[..., None], arguments: tuple[str, ...], error: type[Exception], expected: str
) -> None:
    cached()
    untrained(home, 0)
    with pytest.raises(error, match="unknown") as caught:
        run("eval", *arguments)
    assert expected in str(caught.value)


def test_the_leaderboard_shows_what_is_stored(home: Home, cached: Callable[..., None]) -> None:
    cached("one")
    cached("two")
    with pytest.raises(EvaluationError, match="no results yet"):
        run("leaderboard")
    run("eval", "--dataset", "one,two")
    both, one = run("leaderboard", "--json"), run("leaderboard", "--dataset", "one", "--metric", "mrr@10", "--json")
    assert set(rows(both)[0]["cells"]) == {"one/test", "two/test"}
    assert set(rows(one)[0]["cells"]) == {"one/test"}
    assert json.loads(one.stdout)["leaderboards"][0]["metric"] == "mrr@10"
    assert "raw encoder" in run("leaderboard").stdout
    with pytest.raises(ConfigError, match="unknown metric"):
        run("leaderboard", "--metric", "ndcg")
    with pytest.raises(EvaluationError, match="unknown collection"):
        run("leaderboard", "--dataset", "three")


def test_a_folder_stands_for_its_results_as_it_does_for_its_vectors(home: Home, cached: Callable[..., None]) -> None:
    cached("one")
    cached("two")
    folder = str(home.collections / "one")
    run("eval", "--dataset", f"{folder},two")
    assert set(rows(run("leaderboard", "--dataset", folder, "--json"))[0]["cells"]) == {"one/test"}
