from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cache.errors import ConfigError
from ragcun_cache.heads.config import Arch, InputScale
from ragcun_cache.similarity import Similarity
from ragcun_cache.training.config import TrainConfig, load_config, make_config

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINES = sorted((REPOSITORY / "pipelines").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_lejepa_starts_at_the_identity_unless_the_published_recipe_is_asked_for() -> None:
    config = make_config({"dataset": "x"})
    assert (config.arch, config.lambda_isotropy, config.lambda_predictive, config.ema) == (Arch.LEJEPA, 4.5, 1.2, 0.999)
    assert (config.init, config.predictor_init, config.isotropy) == ("identity", "identity", "scale_free")
    assert (config.epochs, config.batch_size, config.learning_rate, config.dropout) == (3, 256, 3e-4, 0.1)
    assert (config.similarity, config.input_scale) == (Similarity.COSINE, InputScale.SQRT_DIM)
    assert config.head_config(768).out_dim == 768

    published = load_config(None, {"dataset": "x"}, "published")
    assert (published.init, published.predictor_init, published.isotropy) == ("random", "random", "published")
    assert (published.epochs, published.batch_size, published.learning_rate) == (3, 16, 5e-4)
    assert (published.similarity, published.input_scale) == (Similarity.L2, InputScale.NONE)


def test_the_preset_is_the_recipe_in_the_repository() -> None:
    path = REPOSITORY / "pipelines" / "lejepa_published.yaml"
    assert load_config(path, {}) == load_config(path, {}, "published")
    assert load_config(path, {}) == load_config(
        None, {"dataset": "msmarco", "pairs": 10000, "out_dim": 768}, "published"
    )
    default = load_config(REPOSITORY / "pipelines" / "lejepa_identity.yaml", {})
    assert default == make_config({"dataset": "msmarco", "pairs": 10000})


def test_respred_and_asymmetric_are_trained_as_published() -> None:
    respred = make_config({"dataset": "x", "arch": "respred"})
    assert (respred.lambda_isotropy, respred.lambda_predictive, respred.lambda_residual) == (1.5, 1.2, 0.01)
    assert (respred.input, respred.batch_size, respred.learning_rate) == ("pooled", 64, 1e-3)
    assert (respred.similarity, respred.ema) == (Similarity.L2, None)
    asymmetric = make_config({"dataset": "x", "arch": "asymmetric"})
    assert asymmetric.terms == ("isotropy", "contrastive")
    assert (asymmetric.temperature, asymmetric.towers, asymmetric.similarity) == (0.05, "independent", "cosine")
    # The loss compares as retrieval will, unless it is to be otherwise.
    assert make_config({"dataset": "x", "arch": "asymmetric", "similarity": "dot"}).contrastive_similarity == "dot"
    assert load_config(None, {"dataset": "x", "arch": "respred"}, "published") == respred


def test_a_file_goes_over_a_preset_and_a_flag_over_both(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "dataset: x\nbatch_size: 8\nepochs: 5\n"), {"epochs": 7}, "published")
    assert (config.batch_size, config.epochs, config.learning_rate) == (8, 7, 5e-4)
    with pytest.raises(ConfigError, match=r"unknown preset 'publisht'(.|\n)*'published'"):
        load_config(None, {"dataset": "x"}, "publisht")


def test_a_start_at_the_identity_changes_what_follows_from_it() -> None:
    config = make_config({"dataset": "x", "init": "identity"})
    assert (config.similarity, config.input_scale) == (Similarity.COSINE, InputScale.SQRT_DIM)
    asked = make_config({"dataset": "x", "init": "identity", "similarity": "dot", "input_scale": "none"})
    assert (asked.similarity, asked.input_scale) == (Similarity.DOT, InputScale.NONE)


@pytest.mark.parametrize("arch", list(Arch))
def test_a_full_record_reads_back_as_itself(arch: Arch) -> None:
    config = make_config({"dataset": "x", "arch": arch})
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"arch": "lejeppa"},
            r"unknown arch 'lejeppa'(.|\n)*identity, isotropy, lejepa, respred, untrained(.|\n)*'lejepa'",
        ),
        ({"isotropy": "scalefree"}, r"unknown isotropy(.|\n)*published, scale_free(.|\n)*did you mean 'scale_free'"),
        ({"learning_rat": 1}, r"unknown setting 'learning_rat'(.|\n)*did you mean 'learning_rate'"),
        ({"batch_size": 0}, r"batch_size is out of range(.|\n)*greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate is out of range"),
        ({"epochs": "many"}, "epochs is out of range"),
        ({"dev": 1.5}, "dev is out of range"),
        ({"ema": False}, r"ema is not a switch(.|\n)*float or null"),
        ({"ema": 1.0}, "ema is out of range"),
        ({"stop_gradient": "maybe"}, r"stop_gradient is out of range"),
        ({"stop_gradient": False}, r"moving average has no gradient(.|\n)*ema: null"),
        ({"arch": "isotropy", "lambda_isotropy": 0.0}, "no loss to learn by"),
        ({"arch": "lejepa", "towers": "copied"}, "towers does not apply to arch lejepa"),
        ({"arch": "asymmetric", "lambda_residual": 0.1}, "lambda_residual does not apply"),
        ({"arch": "respred", "ema": 0.9}, "ema does not apply to arch respred"),
        ({"arch": "isotropy", "ema": 0.99}, "ema does not apply to arch isotropy"),
        ({"arch": "untrained", "epochs": 2}, "epochs does not apply to arch untrained"),
        ({"arch": "identity", "seed": 3}, "seed does not apply to arch identity"),
        ({"device": "gpu"}, r"unknown device 'gpu'(.|\n)*auto, cpu, cuda, cuda:N, mps"),
        ({"dev": "train"}, "training and dev are the same split"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({"dataset": "x", **settings})


def test_dataset_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"dataset is missing(.|\n)*--dataset"):
        make_config({})


def test_identity_start_keeps_the_dimension() -> None:
    with pytest.raises(ConfigError, match=r"keeps the encoder's dimension(.|\n)*768(.|\n)*512"):
        make_config({"dataset": "x", "init": "identity", "out_dim": 512}).head_config(768)


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "dataset: x\nlearning_rate: 2e-6\nepochs: 5\n")
    config = load_config(path, {"epochs": 1})
    assert (config.learning_rate, config.epochs) == (2e-6, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: x\n\nepoch: 3\n", r"unknown setting 'epoch'(.|\n)*config.yaml, line 3(.|\n)*did you mean 'epochs'"),
        ("dataset: x\nselect: best\n", r"unknown select 'best'(.|\n)*config.yaml, line 2"),
        ("dataset: x\nepochs: -1\n", r"epochs is out of range(.|\n)*line 2"),
        ("dataset: x\nseed: 1\nseed: 2\n", r"seed is set twice(.|\n)*lines 2 and 3"),
        ("- dataset\n", "a config file holds settings"),
        ("", "a config file holds settings"),
        ("dataset: [\n", "cannot be read as YAML"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {})


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_head_recipes_are_valid(path: Path) -> None:
    if path.read_text().startswith("arch:") or "\narch:" in path.read_text():
        assert isinstance(load_config(path, {}), TrainConfig)
