from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks import shuffled_heads
from benchmarks.beating_raw import write_page
from ragcun_cache.cli.main import app
from ragcun_cache.errors import CacheError, EvaluationError
from ragcun_cache.evaluation.significance import compare
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads import list_heads
from ragcun_cache.home import Home
from ragcun_cache.training.config import make_config
from ragcun_cache.training.pairs import load_training_data
from ragcun_cache.tuning.config import TuneConfig
from ragcun_cache.tuning.record import list_tunings
from ragcun_cache.tuning.tune import Tuned, tune

FIRST_RUNG = 1e-9
"""Minutes in which raw, BM25 and both are tried, and nothing else."""


@pytest.fixture
def collections(judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    judged_collection("others", splits={"train": 60, "test": 40}, seed=1)


def run(home: Home, **settings: object) -> Tuned:
    given = {"dataset": "topics", "minutes": FIRST_RUNG} | settings
    return tune(TuneConfig.model_validate(given), home, ResultStore(home.results))


def configs(home: Home) -> list[TuneConfig]:
    """All that was tuned."""
    return [record.config for record in list_tunings(home.tunings)]


@pytest.mark.usefixtures("collections")
def test_a_tuning_is_kept_with_all_that_was_tried(home: Home) -> None:
    tuned = run(home)
    (record,) = list_tunings(home.tunings)
    assert [(one.system, one.dev_ndcg) for one in record.trials] == [(str(spec), ndcg) for spec, ndcg in tuned.trials]
    assert record.trials[0].family == "raw" and {"raw + BM25", "BM25"} <= {one.family for one in record.trials}
    assert tuned.winner is not None
    assert (record.spec, record.raw, record.winner) == (tuned.spec, tuned.raw.key, tuned.winner.key)
    run(home)
    run(home, seed=1)
    assert len(list_tunings(home.tunings)) == 2
    run(home, encoder=record.encoder)
    assert len(list_tunings(home.tunings)) == 2
    (home.tunings / "broken.json").write_text("{}")
    assert len(list_tunings(home.tunings)) == 2


@pytest.mark.usefixtures("collections")
def test_what_is_stored_is_passed_over_if_asked(home: Home) -> None:
    run(home, minutes=10.0, labels="none")
    (record,) = list_tunings(home.tunings)
    before = (home.tunings / f"{record.name}.json").stat().st_mtime_ns
    command = ["tune", "--dataset", "topics", "--labels", "none"]
    shown = CliRunner().invoke(app, [*command, "--skip-stored"])
    assert shown.exit_code == 0 and "tested once" not in shown.output and "was tuned before" in shown.output
    assert (home.tunings / f"{record.name}.json").stat().st_mtime_ns == before
    assert "tested once" in CliRunner().invoke(app, command).stdout


@pytest.mark.usefixtures("collections")
def test_what_other_code_or_data_gave_is_tuned_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ["--labels", "none", "--transfer", "others", "--minutes", "1e-9"]
    command = ["tune", "--dataset", "topics", *config, "--skip-stored"]
    note = "was tuned before, by other code or data: tuned again"
    shown = CliRunner().invoke(app, command)
    assert "tested once" in shown.output and "was tuned before" not in shown.output
    (path,) = home.tunings.glob("*.json")
    # As records were before they said what they were made from.
    old = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "made_from"}
    path.write_text(json.dumps(old))
    shown = CliRunner().invoke(app, command)
    assert "tested once" in shown.output and note in shown.output
    assert "tested once" not in CliRunner().invoke(app, command).output
    qrels = home.collections / "others" / "qrels" / "train.tsv"
    qrels.write_text("\n".join(qrels.read_text().splitlines()[:-1]) + "\n")
    shown = CliRunner().invoke(app, command)
    assert "tested once" in shown.output and note in shown.output
    monkeypatch.setattr("ragcun_cache.tuning.task.code_version", lambda: "another")
    assert note in CliRunner().invoke(app, command).output
    assert list(home.tunings.glob("*.json")) == [path]


@pytest.mark.usefixtures("collections")
def test_the_page_says_what_the_store_says(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "beating_raw.md"
    with pytest.raises(EvaluationError, match="nothing was tuned yet"):
        write_page(home, [], [], page)
    zero_shot = run(home, labels="none", transfer=["others"])
    in_domain = [run(home, seed=seed) for seed in range(2)]
    null = [run(home, seed=seed, shuffled=True) for seed in range(2)]
    run(home, train_queries=50)
    write_page(home, configs(home), [], page)
    text = page.read_text()
    for title in ("### Zero-shot", "### In-domain", "### With few labels", "### The planted null", "commit"):
        assert title in text
    assert zero_shot.winner is not None and in_domain[0].winner is not None
    raw = in_domain[0].raw.metrics["ndcg@10"]
    values = [(one.winner or one.raw).metrics["ndcg@10"] for one in in_domain]
    assert f"| topics | {raw:.4f} | {zero_shot.winner.metrics['ndcg@10']:.4f} | 1 |" in text
    assert f"| topics | {raw:.4f} | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} | 2 |" in text
    differences = [(one.winner or one.raw).metrics["ndcg@10"] - raw for one in null]
    kept = sum(one.winner is None for one in null)
    assert f"| topics, labels train | {raw:.4f} | {kept} | 2 | {np.mean(differences):+.4f} |" in text
    trials = list(csv.DictReader(page.with_name("beating_raw_trials.csv").read_text().splitlines()))
    assert len(trials) == len(zero_shot.trials) + len(in_domain[0].trials)
    assert {(one["labels"], one["seeds"]) for one in trials} == {("none", "1"), ("train", "2")}


def main_rows(page: Path) -> list[list[str]]:
    """The cells of the rows of the first table of the page."""
    _, *tables = page.read_text().split("| collection | raw | tuned |")
    lines = tables[0].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.usefixtures("collections")
def test_a_collection_tuned_twice_has_its_own_figures_in_each_row(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    both = [
        run(home, labels="none", transfer=["others"]),
        run(home, labels="none", transfer=["others"], minutes=2 * FIRST_RUNG),
    ]
    assert both[0].winner is not None and both[1].winner is not None
    # The second is given another winner, no better than raw, so that the two rows differ.
    (record,) = [one for one in list_tunings(home.tunings) if one.config.minutes == 2 * FIRST_RUNG]
    record.model_copy(update={"winner": None}).save(home.tunings)
    run(home, dataset="others", labels="none", transfer=["topics"])
    write_page(home, configs(home), [], page)
    store = ResultStore(home.results)
    raw = both[0].raw.metrics["ndcg@10"]
    rows = {cells[2]: cells for cells in main_rows(page) if cells[0] == "topics"}
    better = rows[f"{both[0].winner.metrics['ndcg@10']:.4f}"]
    assert rows[f"{raw:.4f}"][4].startswith("+0.0000 (") and rows[f"{raw:.4f}"][6].startswith("0/60/0")
    found = compare(*(store.per_query(one).values["ndcg@10"] for one in (both[0].winner, both[0].raw)))
    assert (
        better[4].startswith(f"{found.difference:+.4f} (") and better[6] == f"{found.wins}/{found.ties}/{found.losses}"
    )
    (mean,) = [cells for cells in main_rows(page) if cells[0] == "mean"]
    (others,) = [cells for cells in main_rows(page) if cells[0] == "others"]
    assert float(mean[1]) == pytest.approx((raw + float(others[1])) / 2, abs=1e-4)


@pytest.mark.usefixtures("collections")
def test_only_what_the_recipes_ask_for_is_on_the_page(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    asked = run(home, labels="none", transfer=["others"])
    run(home, labels="none", transfer=["others"], minutes=2 * FIRST_RUNG)
    run(home, dataset="others", labels="none", transfer=["topics"])
    write_page(home, [asked.config.model_copy(update={"seed": 7})], [], page)
    (row,) = main_rows(page)
    assert row[0] == "topics"
    trials = list(csv.DictReader(page.with_name("page_trials.csv").read_text().splitlines()))
    assert {(one["collection"], one["seeds"]) for one in trials} == {("topics", "1")}
    with pytest.raises(EvaluationError, match="nothing was tuned yet"):
        write_page(home, [asked.config.model_copy(update={"minutes": 3.0})], [], page)


def test_the_recipes_of_the_page_are_those_that_make_beat_runs() -> None:
    recipes = Path(__file__).resolve().parents[2] / "pipelines" / "tune"
    makefile = (recipes.parents[1] / "Makefile").read_text()
    patterns = re.findall(r"pipelines/tune/(\S+\.yaml)", makefile)
    run_by_make = {path for pattern in patterns for path in recipes.glob(pattern)}
    assert run_by_make == set(recipes.glob("*.yaml"))


@pytest.mark.usefixtures("collections")
def test_the_page_says_where_vectors_and_heads_come_from(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    run(home, train_queries=50)
    run(home, labels="none", transfer=["others"])
    write_page(home, configs(home), [], page)
    text = page.read_text()
    assert ": encoded by ragcun-cache, backend fake, precision fp32\n" in text
    assert "- trained or chosen by: topics/train, 50 of the queries (tuned, labels train)\n" in text
    assert "- trained or chosen by: others/test" not in text and "others/train (tuned, labels none)\n" in text


@pytest.mark.usefixtures("collections")
def test_zero_shot_may_be_shuffled_too(home: Home) -> None:
    real = run(home, labels="none", transfer=["others"])
    null = run(home, labels="none", transfer=["others"], shuffled=True)
    assert real.winner is not None and null.winner is None
    assert null.trials[0][1] < real.trials[0][1] / 2


@pytest.mark.usefixtures("collections")
def test_heads_on_shuffled_pairs_are_called_so_and_not_kept(home: Home, tmp_path: Path) -> None:
    data = load_training_data(make_config({"dataset": "topics"}), home)
    null = shuffled_heads.shuffled(data, seed=0)
    assert sorted(null.train_p2[:, 1]) == sorted(data.train_p2[:, 1])
    assert (null.train_p2[:, 0] == data.train_p2[:, 0]).all() and (null.train_p2 != data.train_p2).any()
    assert null.sha256 != data.sha256
    with pytest.raises(CacheError, match="encoder"):
        shuffled_heads.run(home, "topics", None, ["others"], [0], encoder="none")
    results = shuffled_heads.run(home, "topics", None, ["others"], [0, 1], data.caches.encoder)
    assert len(results) == 4 and {one.system.arch for one in results} == {shuffled_heads.ARCH}
    assert not list_heads(home.heads)
    run(home, labels="none", transfer=["others"])
    page = tmp_path / "page.md"
    write_page(home, configs(home), [], page)
    assert "| others, epoch chosen on dev |" in page.read_text()


@pytest.mark.usefixtures("collections")
def test_the_page_says_how_the_default_head_was_chosen_without_test(home: Home, tmp_path: Path) -> None:
    recipe, page = tmp_path / "choice.yaml", tmp_path / "page.md"
    entries = [{"name": "grid", "learning_rate": [1e-3, 3e-3]}, {"name": "no EMA target", "ema": None}]
    train = {"dataset": "topics", "epochs": 1, "batch_size": 32, "device": "cpu", "learning_rate": 3e-3}
    recipe.write_text(yaml.safe_dump({"train": train, "runs": entries, "evaluate": ["others"], "split": "train"}))
    assert CliRunner().invoke(app, ["ablate", str(recipe)]).exit_code == 0
    run(home, labels="none", transfer=["others"])
    write_page(home, configs(home), [recipe], page)
    stored = [one for one in ResultStore(home.results).all() if one.setting.split == "train"]
    (raw,) = (one.metrics["ndcg@10"] for one in stored if one.system.is_raw)
    grid = [one for one in stored if one.system.arch == "lejepa" and one.system.settings["ema"]]
    expected = {one.system.settings["learning_rate"]: one.metrics["ndcg@10"] - raw for one in grid}
    text = page.read_text()
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| learning_rate=")]
    first = max(expected, key=expected.__getitem__)
    assert [cell[1] for cell in cells] == [
        f"{gain:+.4f} ({rank})" for rank, gain in ((1, expected.pop(first)), *((2, gain) for gain in expected.values()))
    ]
    assert cells[0][0] == f"| learning_rate={first}"
    assert "Rows without a rank change one thing of learning_rate=0.003." in text
    assert "| no EMA target | " in text and "The default of `train-head` is another." in text


@pytest.mark.usefixtures("collections")
def test_the_default_head_on_another_split_is_a_table_of_its_own(home: Home, tmp_path: Path) -> None:
    recipe, page = tmp_path / "fresh.yaml", tmp_path / "page.md"
    train = {"dataset": "topics", "epochs": 1, "batch_size": 32, "device": "cpu", "arch": "lejepa"}
    entries = [{"name": "the default"}, {"name": "the one before", "learning_rate": 3e-3}]
    asked = {"train": train, "runs": entries, "seeds": [0, 1], "evaluate": ["others"], "split": "train"}
    recipe.write_text(yaml.safe_dump(asked))
    assert CliRunner().invoke(app, ["ablate", str(recipe)]).exit_code == 0
    run(home, labels="none", transfer=["others"])
    write_page(home, configs(home), [recipe], page)
    text = page.read_text()
    assert "### Dense only: the default head on the train split\n" in text and "what else was tried" not in text
    figures = [one for one in ResultStore(home.results).all() if one.setting.split == "train" and not one.system.is_raw]
    of_seed = {
        one.system.seed: one.metrics["ndcg@10"] for one in figures if one.system.settings["learning_rate"] < 3e-3
    }
    for seed, value in of_seed.items():
        assert f"| seed {seed} | {value:.4f} (" in text
    assert "| the default, 2 seeds |" in text and "| the one before, 2 seeds |" in text
