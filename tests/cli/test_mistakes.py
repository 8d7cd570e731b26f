"""What a newcomer is told who names a wrong thing, in commands that read no vector."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragcun_cache.cli.main import app
from ragcun_cache.errors import CacheError, ConfigError, RagcunCacheError, unknown_choice
from ragcun_cache.home import Home
from ragcun_cache.role import Role

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


@pytest.fixture(autouse=True)
def own_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))


def refusal(*arguments: str) -> RagcunCacheError:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, RagcunCacheError), error
    return error


def test_the_nearest_of_an_enumeration_is_shown_as_it_is_typed() -> None:
    assert unknown_choice("role", "querry", list(Role)).fix == "did you mean 'query'?"


def test_what_is_only_half_alike_is_not_suggested() -> None:
    error = refusal("tune", "--dataset", "x", "--labels", "some")
    assert (error.expected, error.fix) == ("one of none, train", None)


@pytest.mark.parametrize("command", ["heads info nosuch", "heads export nosuch --out model"])
def test_where_there_is_nothing_to_choose_from_that_is_said(command: str) -> None:
    error = refusal(*command.split())
    assert error.expected is None and "there is no head yet" in error.problem


def test_a_flag_out_of_range_is_told_in_plain_words() -> None:
    error = refusal("encode", "--dataset", "x", "--batch-tokens", "0")
    assert error.expected == "greater than or equal to 1"


def test_the_list_of_commands_says_all_that_a_group_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for group, last in (("caches", "clear caches"), ("collections", "titles as queries"), ("heads", "trained heads")):
        assert re.search(rf"^  {group} .*{last}", shown, re.MULTILINE), shown


@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.parametrize(
    "command", [("caches", "ls"), ("heads", "ls"), ("eval", "--dataset", "x"), ("encode", "--dataset", "x")]
)
def test_a_home_that_is_a_file_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], below: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAGCUN_HOME", str(tmp_path / "file" / below))
    assert isinstance(refusal(*command), ConfigError)
    assert "the home is no folder" in str(refusal(*command))


@pytest.mark.parametrize("command", ["encode", "eval"])
def test_a_list_of_no_names_is_not_passed_over(command: str) -> None:
    assert "no collection is named" in str(refusal(command, "--dataset", ","))


@pytest.mark.parametrize("command", ["ablate", "train-head --config", "tune --config"])
def test_a_file_for_another_command_names_the_command_it_is_for(command: str) -> None:
    files = {
        "ablate": PIPELINES / "new_idea.yaml",
        "train-head --config": PIPELINES / "lejepa_identity.yaml",
        "tune --config": PIPELINES / "tune" / "in_domain_scifact.yaml",
    }
    for meant, path in files.items():
        error = refusal(*command.split(), str(path))
        if meant != command:
            assert f"this file is for {meant.split()[0]}, not for {command.split()[0]}" in str(error)
            assert error.fix == f"ragcun-cache {meant} {path}"
        else:
            assert "this file is for" not in str(error)  # but there is no such collection in this home


def test_a_setting_outside_train_is_told_its_place(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {dataset: tiny}\nepochs: 1\nevaluate: tiny\n")
    error = refusal("ablate", str(path))
    assert (error.where, error.fix) == (f"{path}, line 2", "train: {epochs: …}")


def test_collections_to_merge_may_be_divided_by_commas(home: Home) -> None:
    assert refusal("caches", "merge", "--dataset", "one,two").problem == "one has no parts to merge"


def test_a_collection_to_merge_may_be_the_folder_one_stands_in(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts are found under the name that `encode` gave it, so it is their manifest that is complained about."""
    folder = tmp_path / "cqadupstack" / "android"
    folder.mkdir(parents=True)
    part = home.caches / "cqadupstack__android" / "parts" / "query-0-0.part-1-of-2" / "manifest.json"
    part.parent.mkdir(parents=True)
    part.write_text("{")
    monkeypatch.chdir(folder)
    for given in (".", "../android", str(folder)):
        assert refusal("caches", "merge", "--dataset", given).where == str(part)
    part.unlink()
    assert "has no parts to merge" in str(refusal("caches", "merge", "--dataset", "."))


def test_where_there_is_no_cache_the_command_that_lists_them_is_named(tmp_path: Path) -> None:
    for command in (("convert", "--to", "parquet"), ("export", "--to", "npy", "--out", str(tmp_path / "x.npy"))):
        error = refusal("caches", command[0], str(tmp_path), *command[1:])
        assert isinstance(error, CacheError) and "ragcun-cache caches ls" in str(error.fix)
