from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ragcun_cache.cache import CachePair
from ragcun_cache.cli import heads
from ragcun_cache.cli.train_head import train_head
from ragcun_cache.collections import Collection
from ragcun_cache.errors import ConfigError, HeadError
from ragcun_cache.home import Home
from ragcun_cache.training.seeds import parse_seeds

app = typer.Typer()
app.command("train-head")(train_head)
app.add_typer(heads.app, name="heads")


@pytest.fixture
def ragcun(
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Run a command in a home with a cached collection and return its standard output; errors are raised."""
    cached_collection()
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

    return run


def test_train_then_list_then_look(ragcun: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("arch: lejepa\ndataset: nowhere\nepochs: 5\nbatch_size: 8\n")
    trained = json.loads(
        ragcun("train-head", "--config", str(path), "--dataset", "tiny", "--epochs", "1", "--seeds", "0-1", "--json")
    )
    assert [[row["epoch"] for row in one["metrics"]] for one in trained] == [[0, 1], [0, 1]]
    assert not any(one["reused"] for one in trained)
    listed = json.loads(ragcun("heads", "ls", "--json"))
    assert [(line["arch"], line["seed"], line["epoch"]) for line in listed] == [
        ("lejepa", 0, "1/1"),
        ("lejepa", 1, "1/1"),
    ]
    about = json.loads(ragcun("heads", "info", trained[1]["name"]))
    assert about["sha256"] == trained[1]["sha256"]
    assert about["epochs_table"] == trained[1]["metrics"]
    again = ragcun("train-head", "--config", str(path), "--dataset", "tiny", "--epochs", "1", "--seed", "1")
    assert "is trained already" in again


def test_table_for_people(ragcun: Callable[..., str]) -> None:
    shown = ragcun("train-head", "--arch", "untrained", "--dataset", "tiny", "--out-dim", "16")
    assert "dev NDCG@10" in shown
    assert "15 queries, 120 passages" in shown
    assert "untrained" in ragcun("heads", "ls")


def test_alarms_are_told_in_words_and_in_json(ragcun: Callable[..., str]) -> None:
    # Raw vectors of this collection are perfect on dev: no head is better.
    command = ("train-head", "--arch", "isotropy", "--dataset", "tiny", "--epochs", "1", "--batch-size", "8")
    line = "alarm, epoch 1: no better than raw: the encoder does as well without this head: dev NDCG@10 is"
    assert line in ragcun(*command)
    assert line in ragcun(*command)
    (trained,) = json.loads(ragcun(*command, "--json"))
    (alarm,) = [alarm for alarm in trained["alarms"] if alarm["name"] == "no better than raw"]
    assert alarm["epoch"] == 1
    assert alarm["figures"] == {name: trained["metrics"][1][name] for name in ("dev_ndcg@10", "raw_dev_ndcg@10")}
    assert "alarm, epoch" not in ragcun("train-head", "--arch", "identity", "--dataset", "tiny")


def test_no_heads_yet(ragcun: Callable[..., str]) -> None:
    assert "no heads yet" in ragcun("heads", "ls")
    with pytest.raises(HeadError, match="unknown head 'x'"):
        ragcun("heads", "info", "x")


def test_ema_can_be_switched_off(ragcun: Callable[..., str]) -> None:
    (trained,) = json.loads(ragcun("train-head", "--dataset", "tiny", "--epochs", "1", "--ema", "none", "--json"))
    assert json.loads(ragcun("heads", "info", trained["name"]))["train"]["ema"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--arch", "lejeppa"], r"unknown arch(.|\n)*identity, isotropy, lejepa, respred, untrained"),
        (["--device", "gpu"], r"unknown device(.|\n)*cpu"),
        (["--seeds", "3-1"], "seeds cannot be read"),
    ],
)
def test_mistakes_name_the_choices(ragcun: Callable[..., str], flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ragcun("train-head", "--dataset", "tiny", *flags)


def test_seeds() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("7") == [7]
    assert parse_seeds("0, 2,5-6") == [0, 2, 5, 6]
    for text in ("", "a", "1-", "-1", "1-2-3"):
        with pytest.raises(ConfigError):
            parse_seeds(text)
