from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.ablation.recipe import Recipe, expand, load_recipe
from ragcun_cache.errors import ConfigError
from ragcun_cache.heads.config import Arch

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = sorted((REPOSITORY / "pipelines").glob("*.yaml"))
FIVE_LINES = """\
train: {dataset: tiny, pairs: 20, arch: lejepa, init: identity}
grid: {lambda_isotropy: [0.5, 1.5], learning_rate: [1e-4, 3e-4]}
seeds: 0-2
evaluate: [tiny, other]
"""


def write(tmp_path: Path, text: str, name: str = "idea.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_five_lines_are_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, FIVE_LINES))
    runs = expand(recipe)
    assert (recipe.name, recipe.evaluate, recipe.seeds) == ("idea", ["tiny", "other"], [0, 1, 2])
    assert len(runs) == 12
    assert {(run.config.lambda_isotropy, run.config.learning_rate, run.config.seed) for run in runs} == {
        (weight, rate, seed) for weight in (0.5, 1.5) for rate in (1e-4, 3e-4) for seed in (0, 1, 2)
    }
    assert runs[0].label == "lambda_isotropy=0.5, learning_rate=0.0001, seed 0"
    assert all(run.config.init == "identity" and run.config.pairs == 20 for run in runs)


def test_seeds_of_the_command_line_take_the_place_of_the_recipes(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, FIVE_LINES), seeds=[7])
    assert {run.config.seed for run in expand(recipe)} == {7}


def test_a_list_and_a_grid_are_crossed_and_the_list_goes_over_the_grid(tmp_path: Path) -> None:
    text = """\
train: {dataset: tiny, learning_rate: 1e-3}
runs:
  - {name: published}
  - {name: fast, learning_rate: 1e-2, lambda_isotropy: 9}
grid: {lambda_isotropy: [1, 2]}
evaluate: tiny, other
"""
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.evaluate == ["tiny", "other"]
    assert [(run.label, run.config.learning_rate, run.config.lambda_isotropy) for run in expand(recipe)] == [
        ("published, lambda_isotropy=1, seed 0", 1e-3, 1.0),
        ("published, lambda_isotropy=2, seed 0", 1e-3, 2.0),
        ("fast, seed 0", 1e-2, 9.0),
    ]


def test_settings_that_an_architecture_has_no_use_for_are_left_out_and_equal_runs_collapse(tmp_path: Path) -> None:
    text = """\
train: {dataset: tiny, epochs: 2, batch_size: 8}
grid: {arch: [identity, untrained, isotropy, lejepa], lambda_predictive: [0.5, 1.2]}
seeds: [0, 1, 0]
evaluate: [tiny]
"""
    runs = expand(load_recipe(write(tmp_path, text)))
    counts = {arch: sum(run.config.arch == arch for run in runs) for arch in {run.config.arch for run in runs}}
    assert counts == {Arch.IDENTITY: 1, Arch.UNTRAINED: 2, Arch.ISOTROPY: 2, Arch.LEJEPA: 4}
    assert [run.label for run in runs][:3] == [
        "arch=identity, seed 0",
        "arch=untrained, seed 0",
        "arch=untrained, seed 1",
    ]


def test_a_file_of_settings_is_a_base_found_from_here_or_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    write(folder, "arch: isotropy\ndataset: tiny\nepochs: 7\nlearning_rate: 1e-3\n", "base.yaml")
    text = "config: {}\ntrain: {{epochs: 1}}\nevaluate: [tiny]\n"
    monkeypatch.chdir(tmp_path)
    for config in ("base.yaml", "pipelines/base.yaml"):
        (run,) = expand(load_recipe(write(folder, text.format(config))))
        assert (run.config.arch, run.config.epochs, run.config.learning_rate) == (Arch.ISOTROPY, 1, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {dataset: x}\nevaluate: [x]\n", r"unknown key 'trian'(.|\n)*line 1(.|\n)*did you mean 'train'"),
        (
            "train:\n  dataset: x\n  learning_rat: 1\nevaluate: [x]\n",
            r"'learning_rat'(.|\n)*line 3(.|\n)*'learning_rate'",
        ),
        ("train: {dataset: x}\ngrid:\n  lambda_isotrop: [1]\nevaluate: [x]\n", r"line 3(.|\n)*'lambda_isotropy'"),
        (
            "train: {dataset: x}\nruns:\n- {epochs: 1}\n- {epoch: 1}\nevaluate: [x]\n",
            r"'epoch'(.|\n)*line 4(.|\n)*'epochs'",
        ),
        ("train: {dataset: x, arch: lejeppa}\n\nevaluate: [x]\n", r"unknown arch(.|\n)*line 1(.|\n)*'lejepa'"),
        (
            "train: {dataset: x}\ngrid:\n  arch: [lejepa]\n  epochs: [1, -1]\nevaluate: [x]\n",
            r"epochs is out of(.|\n)*line 4",
        ),
        (
            "train: {dataset: x}\nruns:\n- {}\n- arch: untrained\n  epochs: 3\nevaluate: [x]\n",
            r"does not apply(.|\n)*line 5",
        ),
        ("train: {arch: lejepa}\nevaluate: [x]\n", r"dataset is missing(.|\n)*train: \{dataset"),
        ("train: {dataset: x, dev: train}\nevaluate: [x]\n", r"same split(.|\n)*line 1"),
        ("train: {dataset: x, seed: 1}\nevaluate: [x]\n", r"seed has a place of its own(.|\n)*seeds:"),
        ("train: {dataset: x}\n", r"evaluate is missing"),
        ("train: {dataset: x}\nevaluate: []\n", r"evaluate cannot be used(.|\n)*line 2"),
        (
            "train: {dataset: x}\ngrid: {epochs: 3}\nevaluate: [x]\n",
            r"grid.epochs cannot be used(.|\n)*line 2(.|\n)*list",
        ),
        ("train: {dataset: x}\ngrid: {epochs: []}\nevaluate: [x]\n", r"grid.epochs cannot be used"),
        ("train: {dataset: x}\nseeds: 3-1\nevaluate: [x]\n", r"seeds cannot be used(.|\n)*line 2(.|\n)*0-9"),
        ("name: a/b\ntrain: {dataset: x}\nevaluate: [x]\n", r"name cannot be used(.|\n)*line 1"),
        (
            "train: {dataset: x}\nsearch:\n  trails: 3\n  space: {}\nevaluate: [x]\n",
            r"'trails'(.|\n)*line 3(.|\n)*'trials'",
        ),
        (
            "train: {dataset: x}\nsearch:\n  trials: 3\n  space:\n    learning_rat: {log: [1, 2]}\nevaluate: [x]\n",
            r"unknown setting 'learning_rat'(.|\n)*line 5",
        ),
        (
            "train: {dataset: x}\nsearch:\n  trials: 3\n  space:\n    epochs: {log: [0, 2]}\nevaluate: [x]\n",
            r"line 5(.|\n)*both above 0",
        ),
        (
            "train: {dataset: x}\nsearch: {trials: 3, space: {epochs: {int: [1, 2]}}}\nevaluate: [x]\n",
            r"unknown key 'int'(.|\n)*'integer'",
        ),
        (
            "train: {dataset: x}\nsearch: {trials: 3, space: {epochs: {log: [1, 2], choice: [3]}}}\nevaluate: [x]\n",
            "exactly one of log",
        ),
        ("config: nowhere.yaml\nevaluate: [x]\n", r"no such config file(.|\n)*nowhere.yaml"),
    ],
)
def test_mistakes_name_the_line_and_the_nearest_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, text))


def test_a_mistake_in_the_base_names_its_line_there(tmp_path: Path) -> None:
    write(tmp_path, "arch: lejepa\ndataset: x\nepochs: -3\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"epochs is out of range(.|\n)*base.yaml, line 3"):
        load_recipe(write(tmp_path, "config: base.yaml\nevaluate: [x]\n"))
    write(tmp_path, "arch: lejepa\nepoch: 3\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"unknown setting 'epoch'(.|\n)*base.yaml, line 2"):
        load_recipe(write(tmp_path, "config: base.yaml\nevaluate: [x]\n"))


VALUES: dict[str, st.SearchStrategy[list[Any]]] = {
    "lambda_isotropy": st.lists(st.floats(0, 10), min_size=1, max_size=3),
    "learning_rate": st.lists(st.sampled_from([1e-4, 1e-3, 0.1]), min_size=1, max_size=3),
    "epochs": st.lists(st.integers(0, 5), min_size=1, max_size=3),
    "dataset": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3),
    "init": st.lists(st.sampled_from(["random", "identity"]), min_size=1, max_size=3),
}


def test_the_recipes_of_the_page_are_valid(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "ablation.md").read_text()
    counts = [len(expand(load_recipe(write(tmp_path, text)))) for text in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    assert counts == [12, 4 + 3 * 3 * 4, 2]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(Recipe.model_fields)


@given(
    grid=st.fixed_dictionaries({}, optional=VALUES),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    entries=st.lists(st.fixed_dictionaries({}, optional={"batch_size": st.sampled_from([2, 4])}), max_size=3),
)
def test_every_combination_is_there_once(
    grid: dict[str, list[Any]], seeds: list[int], entries: list[dict[str, Any]]
) -> None:
    recipe = Recipe(train={"dataset": "a"}, grid=grid, runs=entries, seeds=seeds, evaluate=["a"])
    runs = expand(recipe)
    expected = len({entry.get("batch_size", 16) for entry in entries or [{}]}) * len(set(seeds))
    for values in grid.values():
        expected *= len({float(value) if isinstance(value, float) else value for value in values})
    assert len(runs) == expected
    assert len({run.config.model_dump_json() for run in runs}) == expected
    for run in runs:
        assert run.config.seed in seeds
        assert all(getattr(run.config, name) in values for name, values in grid.items())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    if "\nevaluate:" in path.read_text():
        assert expand(load_recipe(path))


def test_a_list_in_a_run_is_a_grid_of_its_own(tmp_path: Path) -> None:
    text = """\
train: {dataset: tiny, batch_size: 8}
grid: {lambda_isotropy: [1.0, 2.0]}
runs:
  - {name: both, epochs: [1, 2]}
  - {name: one, epochs: 3, lambda_isotropy: 5.0}
evaluate: tiny
"""
    labels = [run.label for run in expand(load_recipe(write(tmp_path, text)))]
    assert labels == [
        "both, lambda_isotropy=1, epochs=1, seed 0",
        "both, lambda_isotropy=1, epochs=2, seed 0",
        "both, lambda_isotropy=2, epochs=1, seed 0",
        "both, lambda_isotropy=2, epochs=2, seed 0",
        "one, seed 0",
    ]
    with pytest.raises(ConfigError, match="epochs does not apply to arch untrained"):
        load_recipe(write(tmp_path, text.replace("evaluate", "  - {arch: untrained, epochs: [1, 2]}\nevaluate")))


def test_settings_from_outside_go_over_the_recipes_own(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {dataset: tiny, epochs: 1}\nruns: [{epochs: 2}, {}]\nevaluate: tiny\n")
    runs = expand(load_recipe(path, train={"dataset": "other", "epochs": 5}))
    assert [(run.config.dataset, run.config.epochs) for run in runs] == [("other", 2), ("other", 5)]
    with pytest.raises(ConfigError, match="unknown setting 'datasets'"):
        load_recipe(path, train={"datasets": "x"})


def test_the_large_recipe_is_both_starts_on_half_a_million_pairs_in_half_precision() -> None:
    runs = expand(load_recipe(REPOSITORY / "pipelines" / "msmarco_500k.yaml"))
    configs = [run.config for run in runs]
    assert {(config.init, config.batch_size, config.epochs) for config in configs} == {
        (init, batch, epochs) for init, batch in (("random", 16), ("identity", 256)) for epochs in (5, 10)
    }
    assert {(config.dataset, config.pairs, config.dtype) for config in configs} == {("msmarco", 500_000, "float16")}
