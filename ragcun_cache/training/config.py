"""One training run's settings: a YAML file, flags over it, and a full, checked record of both."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ragcun_cache.errors import ConfigError, RagcunCacheError, unknown_choice
from ragcun_cache.heads.config import (
    Arch,
    ArchName,
    Contrastive,
    HeadConfig,
    Init,
    Input,
    InputScale,
    Isotropy,
    Output,
    Predictive,
    Term,
    Towers,
    trains,
)
from ragcun_cache.heads.own import own_archs
from ragcun_cache.marked_yaml import read_yaml
from ragcun_cache.pipelines import for_another_command
from ragcun_cache.presets import DEFAULTS, PRESETS
from ragcun_cache.similarity import Similarity


class Select(StrEnum):
    """Which epoch's weights are kept."""

    LAST = "last"
    """The last epoch's, as published."""
    BEST_DEV = "best_dev"
    """Those of the highest NDCG@10 on dev, the untrained start (epoch 0) among them."""
    DEV_LOSS = "dev_loss"
    """Those of the lowest loss on the dev pairs, the predictive and residual terms left out, epoch 0 left out too: what
    ctn/ragcun called its best model. With isotropy alone it prefers whatever has shrunk most."""


class Schedule(StrEnum):
    """How the learning rate goes on after the warm-up, step by step."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """Half a cosine, down to zero after the last step."""
    PUBLISHED = "published"
    """What ctn/ragcun really ran with: LinearLR from a tenth of the rate over 100 epochs, stepped once an epoch. Epochs
    1, 2, 3 have 0.1, 0.109 and 0.118 times the rate."""


class TensorDtype(StrEnum):
    """How training vectors are held on the device; a batch of them is made float32 in any case."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    """Half the memory, and what the cache stores by default."""


class Precision(StrEnum):
    """What the layers of a head multiply in while it is trained."""

    FP32 = "fp32"
    BF16 = "bf16"
    """Inputs and weights of every product are rounded to bfloat16, by autocast. What is learnt, its gradients, losses,
    the optimiser and the finished head stay float32."""


_NO_PREDICTION: dict[str, Any] = {
    "lambda_predictive": 0.0,
    "predictive": Predictive.MSE,
    "predictor_layers": 2,
    "predictor_init": Init.RANDOM,
    "stop_gradient": True,
    "ema": None,
}
_NO_RESIDUAL: dict[str, Any] = {"lambda_residual": 0.0, "residual_tanh": True}
_ONE_TOWER: dict[str, Any] = {"towers": Towers.INDEPENDENT}

_NOTHING_TO_LEARN: dict[str, Any] = {
    **_NO_PREDICTION,
    **_NO_RESIDUAL,
    **_ONE_TOWER,
    "epochs": 0,
    "isotropy": Isotropy.PUBLISHED,
    "lambda_isotropy": 0.0,
    "contrastive": Contrastive.INFONCE,
    "contrastive_similarity": Similarity.COSINE,
    "lambda_contrastive": 0.0,
    "lambda_variance": 0.0,
    "temperature": 0.05,
    "margin": 0.1,
    "dropout": 0.0,
    "input_noise": 0.0,
    "batch_size": 16,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "schedule": Schedule.CONSTANT,
    "warmup_steps": 0,
    "select": Select.LAST,
    "precision": Precision.FP32,
}

# The settings that an architecture leaves no choice in. Asking for anything else is an error: a setting that is
# accepted and ignored would sit in the record of a run that it had no part in.
_FIXED: dict[Arch | str, dict[str, Any]] = {
    Arch.IDENTITY: {
        **_NOTHING_TO_LEARN,
        "init": Init.IDENTITY,
        "input": Input.UNIT,
        "input_scale": InputScale.NONE,
        "output": Output.PLAIN,
        "out_dim": None,
        "seed": 0,
    },
    Arch.UNTRAINED: {**_NOTHING_TO_LEARN, "init": Init.RANDOM},
    Arch.ISOTROPY: {**_NO_PREDICTION, **_NO_RESIDUAL, **_ONE_TOWER},
    Arch.LEJEPA: {**_NO_RESIDUAL, **_ONE_TOWER},
    Arch.RESPRED: {**_ONE_TOWER, "ema": None, "predictor_layers": 2, "predictor_init": Init.RANDOM},
    Arch.ASYMMETRIC: {**_NO_RESIDUAL, "ema": None},
}

_UNWEIGHTED = ("lambda_contrastive", "lambda_variance", "lambda_residual")


def settings_fixed_by(arch: str) -> dict[str, Any]:
    """Return the settings that ``arch`` leaves no choice in, with their values."""
    return _FIXED.get(arch, {})


class TrainConfig(BaseModel):
    """Everything that decides what a run trains. Explicit: what follows from ``arch`` and ``init`` is filled in.

    ``dev`` is a split of the collection, or a fraction of the train queries to be set apart; left out, it is the
    split ``dev`` where there is one that is not the collection's test split, else 0.1. ``out_dim`` left out is the
    encoder's dimension. An architecture may have defaults of its own (``presets.DEFAULTS``). ``predictor_init`` follows
    ``init``. Raises pydantic's ValidationError; use ``load_config`` or ``make_config`` for a ConfigError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    arch: ArchName = Arch.LEJEPA
    dataset: str
    encoder: str | None = None
    pairs: int | None = Field(default=None, gt=0)
    pairs_seed: int = Field(default=0, ge=0)
    train: str = "train"
    dev: Annotated[float, Field(gt=0.0, lt=1.0)] | str | None = None

    out_dim: int | None = Field(default=None, gt=0)
    init: Init = Init.RANDOM
    input: Input = Input.UNIT
    input_scale: InputScale
    similarity: Similarity
    output: Output = Output.PLAIN
    towers: Towers = Towers.INDEPENDENT
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    input_noise: float = Field(default=0.0, ge=0.0)

    isotropy: Isotropy = Isotropy.PUBLISHED
    lambda_isotropy: float = Field(default=1.5, ge=0.0)
    predictive: Predictive = Predictive.MSE
    lambda_predictive: float = Field(default=1.2, ge=0.0)
    ema: float | None = Field(default=0.999, gt=0.0, lt=1.0)
    stop_gradient: bool = True
    predictor_layers: int = Field(default=2, ge=0, le=2)
    predictor_init: Init
    contrastive: Contrastive = Contrastive.INFONCE
    contrastive_similarity: Similarity
    lambda_contrastive: float = Field(default=0.0, ge=0.0)
    temperature: float = Field(default=0.05, gt=0.0)
    margin: float = Field(default=0.1, ge=0.0)
    lambda_variance: float = Field(default=0.0, ge=0.0)
    lambda_residual: float = Field(default=0.0, ge=0.0)
    residual_tanh: bool = True

    epochs: int = Field(default=3, ge=0)
    batch_size: int = Field(default=16, gt=0)
    learning_rate: float = Field(default=5e-4, ge=0.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    grad_clip: float = Field(default=1.0, gt=0.0)
    schedule: Schedule = Schedule.CONSTANT
    warmup_steps: int = Field(default=0, ge=0)
    select: Select = Select.LAST
    seed: int = Field(default=0, ge=0, lt=2**63)

    device: str = "auto"
    dtype: TensorDtype = TensorDtype.FLOAT32
    precision: Precision = Precision.FP32

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """Fill in what follows from ``arch`` and ``init``, and refuse what they exclude."""
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and (field is None or field.annotation is not bool):
                # Pydantic would take YAML's on/off/yes/no for 1 and 0.
                raise ConfigError(f"{name} is not a switch", expected=_expectation(name), found=value)
        arch = given.get("arch", cls.model_fields["arch"].default)
        own = {} if arch in list(Arch) else own_archs()
        if arch not in list(Arch) and str(arch) not in own:
            raise unknown_choice("arch", str(arch), [*(member.value for member in Arch), *own])
        fixed = settings_fixed_by(str(arch))
        for name, value in fixed.items():
            if name in given and given[name] != value:
                raise ConfigError(
                    f"{name} does not apply to arch {arch}",
                    expected=f"{name} left out" if value is None else f"{name} left out, or {value}",
                    found=given[name],
                )
        # A head of the user's own has the terms that it has: a weight is to be said for one to be weighted at all.
        defaults = dict.fromkeys(_UNWEIGHTED, 1.0) if str(arch) in own else DEFAULTS.get(str(arch), {})
        filled = {**defaults, **given, **fixed}
        starts_at_raw = filled.get("init", Init.RANDOM) == Init.IDENTITY
        filled.setdefault("predictor_init", Init.IDENTITY if starts_at_raw else Init.RANDOM)
        filled.setdefault("similarity", Similarity.COSINE if starts_at_raw else Similarity.L2)
        filled.setdefault("contrastive_similarity", filled["similarity"])
        filled.setdefault("input_scale", InputScale.SQRT_DIM if starts_at_raw else InputScale.NONE)
        return filled

    @model_validator(mode="after")
    def _device_has_a_name(self) -> Self:
        # Whether this machine has it is for resolve_device to say, which needs torch; a finished run never asks.
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise unknown_choice("device", self.device, ["auto", "cpu", "cuda", "cuda:N", "mps"])
        return self

    @model_validator(mode="after")
    def _dev_is_not_train(self) -> Self:
        if self.dev == self.train:
            raise ConfigError(
                "training and dev are the same split", expected="two different splits", found=f"dev: {self.dev}"
            )
        return self

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> Self:
        if isinstance(self.arch, Arch) and trains(self.arch) and self.epochs and not self.terms:
            raise ConfigError(f"arch {self.arch} has no loss to learn by", expected="a weight above 0", fix="lambda_…")
        return self

    @model_validator(mode="after")
    def _moving_average_has_no_gradient(self) -> Self:
        if self.ema is not None and not self.stop_gradient:
            raise ConfigError(
                "a target that is a moving average has no gradient to let through",
                expected="ema: null where stop_gradient is false",
                found=f"ema: {self.ema}",
            )
        return self

    @property
    def terms(self) -> tuple[Term, ...]:
        """The loss terms that have a weight."""
        return tuple(term for term in Term if self.weight(term))

    def weight(self, term: str) -> float:
        """Return the weight of a loss term: 1 for one that is not in the config."""
        return float(getattr(self, f"lambda_{term}", 1.0))

    def head_config(self, in_dim: int) -> HeadConfig:
        """Return the config of the head to be trained on vectors of ``in_dim``. Raises ConfigError if it is none."""
        out_dim = in_dim if self.out_dim is None else self.out_dim
        shared = {name: getattr(self, name) for name in HeadConfig.model_fields if name in TrainConfig.model_fields}
        try:
            return HeadConfig(**{**shared, "in_dim": in_dim, "out_dim": out_dim, "terms": self.terms})
        except ValidationError:
            raise ConfigError(
                f"init: {Init.IDENTITY} keeps the encoder's dimension",
                expected=f"out_dim {in_dim}, or left out",
                found=out_dim,
                fix=f"init: {Init.RANDOM}, or no out_dim",
            ) from None


def _choices(name: str) -> type[StrEnum] | None:
    """Return the enumeration that the setting ``name`` takes its value from, if it takes it from one."""
    annotation = TrainConfig.model_fields[name].annotation if name in TrainConfig.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, StrEnum) else None


def _expectation(name: str) -> str:
    field = TrainConfig.model_fields.get(name)
    if field is None:
        return f"one of {', '.join(sorted(TrainConfig.model_fields))}"
    annotation = field.annotation
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    options = tuple(get_args(option)[0] if get_origin(option) is Annotated else option for option in options)
    return " or ".join("null" if option is type(None) else option.__name__ for option in options)


def _as_config_error(error: ValidationError, where: str | None) -> RagcunCacheError:
    """Turn the first of pydantic's complaints into ours."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return unknown_choice("setting", name, TrainConfig.model_fields, where=where)
    if first["type"] == "missing":
        return ConfigError(f"{name} is missing", where=where, expected=_expectation(name), fix=f"give --{name}")
    if choices := _choices(name):
        return unknown_choice(name, str(first["input"]), [member.value for member in choices], where=where)
    return ConfigError(f"{name} is out of range", where=where, expected=first["msg"], found=repr(first["input"]))


def make_config(settings: dict[str, Any]) -> TrainConfig:
    """Check ``settings`` and fill in the rest. Raises ConfigError, naming the valid choices."""
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        raise _as_config_error(error, None) from None


def load_config(path: Path | None, overrides: dict[str, Any], preset: str | None = None) -> TrainConfig:
    """Read the YAML file ``path`` (None: no file), put it over the ``preset`` and ``overrides`` over both, check all.

    Raises ConfigError that names the file and, for a key that is in it, the line.
    """
    marked = read_yaml(path) if path else None
    if marked and (misplaced := for_another_command(marked, "train-head")) is not None:
        raise misplaced
    if preset is not None and preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    given = {str(name): value for name, value in marked.content.items()} if marked else {}
    arch = {**given, **overrides}.get("arch", Arch.LEJEPA)
    settings = {**PRESETS[preset].get(str(arch), {}), **given} if preset else given
    try:
        return TrainConfig.model_validate({**settings, **overrides})
    except ValidationError as error:
        location = error.errors()[0]["loc"][:1]
        in_file = marked is not None and location in marked.lines and location[0] not in overrides
        raise _as_config_error(error, marked.where(location) if marked and in_file else None) from None
