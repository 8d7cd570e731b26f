from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
from ragcun_cache.tuning.tune import FIXED_IN_ADVANCE, Tuned, tune

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
    assert (again.spec, again.dev_ndcg, again.winner) == (tuned.spec, tuned.dev_ndcg, tuned.winner)
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


def test_without_any_judgement_the_choice_is_fixed_in_advance(
    home: Home, judged_collection: Callable[..., Path]
) -> None:
    judged_collection(splits={"test": 100})
    tuned = run(home, labels="none")
    assert (tuned.spec, tuned.trials, tuned.dev_ndcg) == (FIXED_IN_ADVANCE, [], None)
    assert tuned.winner is not None and tuned.winner.route == "zero-shot"
    with pytest.raises(TrainingError, match=r"no judged queries(.|\n)*--labels none"):
        run(home)


def test_a_deadline_leaves_rungs_out_and_says_so(home: Home, judged_collection: Callable[..., Path]) -> None:
    judged_collection(splits={"train": 120, "test": 60})
    tuned = run(home, minutes=1e-9)
    assert tuned.left_out[0] == "feedback" and len(tuned.trials) < 20


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
