"""Settings of one tuning."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragcun_cache.errors import ConfigError, RagcunCacheError, unknown_choice
from ragcun_cache.marked_yaml import read_yaml
from ragcun_cache.pipelines import for_another_command


class Labels(StrEnum):
    """Which judgements of the collection may be used."""

    TRAIN = "train"
    """Those of its train and dev splits: the in-domain route."""
    NONE = "none"
    """None: the zero-shot route. What is chosen is chosen by judgements of other collections."""


class TuneConfig(BaseModel):
    """What is tuned, by which judgements, within which time.

    ``transfer`` names the collections whose judgements choose where the collection's own may not; left out, every
    other collection that is cached by the same encoder. ``heads`` are trained heads that are tried too.
    ``train_queries`` draws that many of the judged training queries, to see what fewer labels give. ``shuffled`` gives
    every judged query another's passages: a planted null, by which nothing should be found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str
    labels: Labels = Labels.TRAIN
    minutes: float = Field(default=10.0, gt=0.0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    encoder: str | None = None
    heads: list[str] = []
    transfer: list[str] | None = None
    train_queries: int | None = Field(default=None, ge=10)
    shuffled: bool = False

    @property
    def recipe(self) -> dict[str, Any]:
        """What two tunings have in common that are seeds of each other."""
        return self.model_dump(mode="json", exclude={"dataset", "seed", "encoder", "minutes"})


def load_tune_config(path: Path | None, overrides: dict[str, Any]) -> TuneConfig:
    """Read the YAML file ``path`` (None: no file), put ``overrides`` over it, check all.

    Raises:
        ConfigError: a setting is unknown or wrong; it names the file and the line.

    """
    marked = read_yaml(path) if path else None
    if marked and (misplaced := for_another_command(marked, "tune")) is not None:
        raise misplaced
    settings = {str(name): value for name, value in marked.content.items()} if marked else {}
    try:
        return TuneConfig.model_validate({**settings, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = marked.where(first["loc"]) if marked and first["loc"] in marked.lines else None
        found: RagcunCacheError
        if first["type"] == "extra_forbidden":
            found = unknown_choice("setting", name, TuneConfig.model_fields, where=where)
        elif first["type"] == "missing":
            found = ConfigError(f"{name} is missing", where=path, fix=f"give --{name}")
        elif first["type"] == "enum":
            found = unknown_choice(name, str(first["input"]), list(Labels), where=where)
        else:
            found = ConfigError(
                f"{name} is out of range", where=where, expected=first["msg"], found=repr(first["input"])
            )
        raise found from None
