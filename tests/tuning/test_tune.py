from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ragcun_cache.cli.main import app
from ragcun_cache.collections.collection import Collection
from ragcun_cache.errors import CollectionError, ConfigError, TrainingError
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads import list_heads
from ragcun_cache.home import Home
from ragcun_cache.tuning import ladder
from ragcun_cache.tuning.config import TuneConfig, load_tune_config
from ragcun_cache.tuning.spec import Adapter, Dense, Feedback, Spec
from ragcun_cache.tuning.tune import FIXED_IN_ADVANCE, Tuned, tune
from ragcun_cache.tuning.vectors import Source

PIPELINES = sorted((Path(__file__).resolve().parents[2] / "pipelines" / "tune").glob("*.yaml"))

OTHER_ADAPTERS = ladder.Ladder._other_adapters


@pytest.fixture(autouse=True)
def short_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer choices of the same kinds: a test of the way, not of what is best."""
    monkeypatch.setattr(ladder, "WEIGHTS", (0.4, 0.7))
    monkeypatch.setattr(ladder, "_TEMPERATURES", (0.1,))
    monkeypatch.setattr(ladder, "_EVIDENCE", (30.0,))
    monkeypatch.setattr(ladder, "_MEMORY_WEIGHTS", (0.6, 1.0))
    monkeypatch.setattr(ladder, "_MEMORY_DENSE_WEIGHTS", (0.7,))
    monkeypatch.setattr(ladder, "_EPOCHS", (5,))
    monkeypatch.setattr(ladder, "_ALPHAS", (1.0,))
    monkeypatch.setattr(ladder.Ladder, "_other_adapters", lambda self: None)


def run(home: Home, **settings: object) -> Tuned:
    return tune(TuneConfig.model_validate({"dataset": "topics"} | settings), home, ResultStore(home.results))


def ndcg(tuned: Tuned) -> tuple[float, float]:
    """Return the figure of the raw encoder, and of what is used in the end."""
    used = tuned.winner or tuned.raw
    return tuned.raw.metrics["ndcg@10"], used.metrics["ndcg@10"]


def test_with_a_dev_split(home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    judged_collection(splits={"train": 300, "dev": 100, "test": 100})
    monkeypatch.setattr(ladder.Ladder, "_other_adapters", OTHER_ADAPTERS)
    tuned = run(home)
    kinds = {str(spec.dense.config.shape.map) for spec, _ in tuned.trials if spec.dense.kind == "adapter"}
    assert kinds == {"linear", "low_rank", "mlp"}
    raw, chosen = ndcg(tuned)
    assert chosen > raw + 0.1
    assert tuned.trials[0][0].is_raw and tuned.dev_queries == 100 and not tuned.left_out
    assert tuned.chosen_by == ["topics/train", "topics/dev"]
    assert tuned.winner is not None and tuned.winner.route == "in-domain"
    seen, cost = tuned.winner.seen_gold, tuned.winner.cost
    assert seen is not None and seen.seen + seen.unseen == 100
    assert cost is not None and cost.seconds is not None and cost.bytes
    best = max(tuned.trials, key=lambda trial: trial[1])
    assert tuned.dev_ndcg is not None and tuned.dev_ndcg <= best[1]


def test_without_a_dev_split_every_fifth_in_turn(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 100, "test": 60})
    tuned = run(home)
    raw, chosen = ndcg(tuned)
    assert tuned.dev_queries == 100 and chosen > raw
    again = run(home)
    assert (again.spec, again.dev_ndcg) == (tuned.spec, tuned.dev_ndcg)
    assert again.winner is not None and tuned.winner is not None and again.winner.key == tuned.winner.key
    other = run(home, seed=1)
    if other.winner is not None and tuned.winner is not None:
        assert other.winner.system.group == tuned.winner.system.group


def test_the_test_split_is_read_once_the_choice_is_made(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    asked: list[str] = []
    qrels = Collection.qrels
    monkeypatch.setattr(Collection, "qrels", lambda self, split: asked.append(split) or qrels(self, split))
    monkeypatch.setattr("ragcun_cache.tuning.tune.choose", lambda trials, dev: asked.append("chosen") or trials[-1])
    run(home)
    assert asked.index("chosen") < asked.index("test")


def test_shuffled_judgements_end_at_raw(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 300, "dev": 100, "test": 100}, words=0.0)
    for seed in range(3):
        raw, chosen = ndcg(run(home, shuffled=True, seed=seed))
        assert abs(chosen - raw) <= 0.02
    assert ndcg(run(home))[1] > raw + 0.1


def test_few_judgements_never_end_below_raw_by_more_than_noise(
    home: Home, judged_collection: Callable[..., Path]
) -> None:
    judged_collection(splits={"train": 300, "test": 150}, hidden=0.0, words=0.0, noise=0.3)
    differences = [chosen - raw for raw, chosen in (ndcg(run(home, train_queries=40, seed=seed)) for seed in range(5))]
    assert np.mean(differences) > -0.02 and min(differences) > -0.06


def test_more_queries_than_there_are_cannot_be_drawn(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 30, "test": 20})
    with pytest.raises(TrainingError, match=r"too few judged queries to draw from[\s\S]*40 in train[\s\S]*30"):
        run(home, train_queries=40)


@pytest.mark.parametrize("all_train", [False, True])
def test_splits_with_nothing_to_choose_or_learn_by_are_refused(
    home: Home, judged_collection: Callable[..., Path], all_train: bool
) -> None:
    qrels = judged_collection(splits={"train": 30, "dev": 20, "test": 20}) / "qrels"
    lines = (qrels / "train.tsv").read_text().splitlines()
    dev = lines if all_train else [lines[0], *(f"{line[:-1]}0" for line in lines[1:])]
    (qrels / "dev.tsv").write_text("\n".join(dev) + "\n")
    found = "0 in train that are not in dev, 30 in dev" if all_train else "30 in train that are not in dev, 0 in dev"
    with pytest.raises(TrainingError, match=rf"too few judged queries to tune by[\s\S]*{found}"):
        run(home)


def test_the_adapter_that_was_chosen_is_a_head(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 300, "dev": 100, "test": 100}, words=0.0)

    def adapter(trials, dev):
        return next(one for one in trials if one.spec.dense.kind == "adapter" and one.spec.parts == 1)

    monkeypatch.setattr("ragcun_cache.tuning.tune.choose", adapter)
    tuned = run(home)
    (record,) = list_heads(home.heads)
    assert tuned.head is not None and tuned.head.name == record.name and record.complete
    shown = CliRunner().invoke(app, ["eval", "--dataset", "topics", "--head", record.name, "--json"])
    assert shown.exit_code == 0, shown.output
    assert tuned.winner is not None
    results = ResultStore(home.results).all()
    (evaluated,) = [one for one in results if one.system.name == record.name]
    assert evaluated.metrics["ndcg@10"] == pytest.approx(tuned.winner.metrics["ndcg@10"], abs=1e-6)
    assert evaluated.route == "in-domain"
    assert json.loads(CliRunner().invoke(app, ["heads", "info", record.name]).stdout)["epoch"] == 5
    assert record.name in CliRunner().invoke(app, ["heads", "ls"]).stdout


def test_without_labels_other_collections_choose(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 50, "test": 100})
    judged_collection("others", splits={"train": 150, "test": 20}, seed=1)
    tuned = run(home, labels="none")
    assert tuned.chosen_by == ["others/train"] and tuned.dev_queries == 150
    raw, chosen = ndcg(tuned)
    assert chosen > raw
    assert tuned.winner is not None and tuned.winner.route == "zero-shot" and tuned.winner.seen_gold is None
    assert tuned.head is None
    with pytest.raises(TrainingError, match="topics cannot choose for topics"):
        run(home, labels="none", transfer=["topics"])
    with pytest.raises(CollectionError, match="unknown collection 'nowhere'"):
        run(home, labels="none", transfer=["nowhere"])


def test_titles_choose_only_if_they_are_named(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"test": 60})
    names = ("others-titles", "others-titles-pairs50-seed0")
    for seed, (name, record) in enumerate(zip(names, ({"titles_of": "others"}, {"sample_of": names[0]}), strict=True)):
        folder = judged_collection(name, splits={"train": 60}, seed=seed + 1)
        (folder / "collection.json").write_text(json.dumps(record))
    assert run(home, labels="none", minutes=1e-9).chosen_by == []
    assert run(home, labels="none", minutes=1e-9, transfer=[names[0]]).chosen_by == ["others-titles/train"]


def test_without_any_judgement_the_choice_is_fixed_in_advance(
    home: Home, judged_collection: Callable[..., Path]
) -> None:
    judged_collection(splits={"test": 100})
    tuned = run(home, labels="none")
    assert (tuned.spec, tuned.trials, tuned.dev_ndcg) == (FIXED_IN_ADVANCE, [], None)
    assert tuned.winner is not None and tuned.winner.route == "zero-shot"
    with pytest.raises(TrainingError, match=r"no train split(.|\n)*--labels none"):
        run(home)


def test_a_deadline_leaves_rungs_out_and_says_so(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    tuned = run(home, minutes=1e-9)
    assert tuned.left_out[0] == "feedback" and len(tuned.trials) < 20


def test_a_deadline_leaves_out_what_a_rung_has_not_begun(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    tries = ladder.Ladder._try

    def slow(self: ladder.Ladder, dense: Dense, specs: Sequence[Spec]) -> None:
        tries(self, dense, specs)
        if specs[0].feedback:
            self.deadline = -np.inf

    monkeypatch.setattr(ladder.Ladder, "_try", slow)
    tuned = run(home)
    assert {spec.feedback for spec, _ in tuned.trials} == {None, Feedback(passages=1, weight=0.8)}
    assert tuned.left_out[:3] == ["raw + feedback (1, 0.6)", "raw + feedback (3, 0.7)", "heads"]


def test_a_deadline_ends_the_training_of_adapters_between_folds(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    trained: list[float] = []
    train, late = Source.train, time.monotonic() + 3600

    def slow(self: Source, dense: Adapter, *rest: Any) -> object:
        trained.append(dense.config.temperature)
        monkeypatch.setattr("ragcun_cache.tuning.ladder.time.monotonic", lambda: late)
        return train(self, dense, *rest)

    monkeypatch.setattr(Source, "train", slow)
    monkeypatch.setattr("ragcun_cache.tuning.tune.choose", lambda trials, dev: trials[0])
    tuned = run(home)
    assert trained == [0.02]
    assert tuned.left_out[0].startswith("linear adapter") and tuned.left_out[-1] == "other adapters"


def test_a_missing_test_split_is_found_before_the_climb(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 120})
    monkeypatch.setattr(ladder.Ladder, "climb", lambda self: pytest.fail("it was climbed"))
    with pytest.raises(CollectionError, match="test"):
        run(home)


def test_where_there_is_no_train_split_the_fix_is_a_whole_command(
    home: Home, judged_collection: Callable[..., Path]
) -> None:
    judged_collection(splits={"dev": 20, "test": 20})
    with pytest.raises(TrainingError, match="topics has no train split to learn from") as error:
        run(home)
    assert error.value.fix == "ragcun-cache tune --dataset topics --labels none"


def test_scores_of_all_folds_together_have_a_limit(
    home: Home, judged_collection: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_collection(splits={"train": 100, "test": 60})
    for seed, name in enumerate(("others", "thirds"), start=1):
        judged_collection(name, splits={"train": 100, "test": 20}, seed=seed)
    monkeypatch.setattr("ragcun_cache.tuning.data._MAX_SCORES", 50 * 150)
    assert run(home, minutes=1e-9).dev_queries == 50
    assert run(home, minutes=1e-9, labels="none").dev_queries == 50


def test_the_command_says_it_in_words(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 300, "dev": 100, "test": 100})
    shown = CliRunner().invoke(app, ["tune", "--dataset", "topics"])
    assert shown.exit_code == 0, shown.output
    for part in (
        "raw encoder",
        "chosen",
        "won/tied/lost",
        "seen gold",
        "unseen gold",
        "index of passages",
        "dev NDCG@10",
    ):
        assert part in shown.stdout
    assert "judged queries have the id or the text of one that tuned-train-seed0-" in shown.stderr
    shown = CliRunner().invoke(app, ["tune", "--dataset", "topics", "--shuffled", "--seeds", "0-1", "--json"])
    assert shown.exit_code == 0, shown.output
    content = json.loads(shown.stdout)
    assert [one["config"]["seed"] for one in content] == [0, 1]
    plain = CliRunner().invoke(app, ["tune", "--dataset", "topics", "--shuffled"])
    assert ("keep the raw encoder" in plain.stdout) == (content[0]["winner"] is None)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_recipes_are_valid(path: Path) -> None:
    assert load_tune_config(path, {"seed": 3}).seed == 3


def test_mistakes_in_a_recipe_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text, message in (
        ("dataset: x\nlable: none\n", r"unknown setting 'lable'(.|\n)*line 2(.|\n)*labels"),
        ("dataset: x\nlabels: nome\n", r"unknown labels 'nome'(.|\n)*line 2(.|\n)*none"),
        ("labels: none\n", "dataset is missing"),
        ("dataset: x\nminutes: -1\n", r"minutes is out of range(.|\n)*line 2"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_tune_config(path, {})
