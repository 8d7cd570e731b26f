"""What is to be tried: a few lines of YAML, checked to the last name before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ragcun_cache.ablation.grid import PlannedRun, cross, distinct
from ragcun_cache.errors import ConfigError, RagcunCacheError, unknown_choice
from ragcun_cache.marked_yaml import Location, MarkedYaml, read_yaml
from ragcun_cache.pipelines import for_another_command
from ragcun_cache.training.config import TrainConfig
from ragcun_cache.training.seeds import parse_seeds

_SETTINGS = frozenset(TrainConfig.model_fields) - {"seed"}
_DEV_DATA = frozenset({"dataset", "encoder", "pairs", "pairs_seed", "train", "dev"})
_Choices = Annotated[list[Any], Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Frozen):
    """Where a setting is searched: on a logarithmic or a linear scale, among integers, or among choices."""

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choice: _Choices | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError("exactly one of log, linear, integer, choice")
        for kind in ("log", "linear", "integer"):
            bounds = getattr(self, kind)
            if bounds and not (bounds[0] < bounds[1] and (kind != "log" or bounds[0] > 0)):
                raise ValueError(f"{kind}: a lower and a higher bound" + (", both above 0" if kind == "log" else ""))
        return self

    def examples(self) -> list[Any]:
        """Return both ends, or the choices."""
        return self.choice or list(self.log or self.linear or self.integer or ())


class Search(_Frozen):
    """A search of ``space`` for the highest NDCG@10 on the dev queries; ``seed`` is that of the sampler."""

    trials: int = Field(gt=0)
    space: dict[str, Range] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)


class Recipe(_Frozen):
    """One file of ``pipelines/``. Its runs are every entry of ``runs`` x every point of ``grid`` x every seed.

    ``train`` holds settings of ``TrainConfig`` that all runs share; ``config`` is a file of such settings below it.
    A setting of an entry of ``runs`` goes over one of ``grid``, and that over one of ``train``. Shared settings that
    an architecture has no use for (``train-head`` refuses them) are left out for its runs. Every head is evaluated on
    ``split`` (None: the official one) of every collection in ``evaluate``.
    """

    name: str = Field(default="recipe", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    config: Path | None = None
    train: dict[str, Any] = {}
    grid: dict[str, _Choices] = {}
    runs: list[dict[str, Any]] = []
    seeds: list[int] = Field(default=[0], min_length=1)
    evaluate: list[str] = Field(min_length=1)
    split: str | None = None
    search: Search | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _read_seeds(cls, given: Any) -> Any:
        if isinstance(given, list):
            return list(dict.fromkeys(given))
        try:
            return parse_seeds(str(given))
        except ConfigError:
            raise ValueError("such as 0-9 or 0,2,5-7") from None

    @field_validator("evaluate", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def load_recipe(path: Path, *, seeds: Sequence[int] | None = None, train: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe; ``seeds`` take the place of its own, and ``train`` goes over its ``train``.

    Settings of its ``config`` file go into ``train``, below those.

    Raises ConfigError that names the line and, for an unknown name, the nearest valid one.
    """
    marked = read_yaml(path)
    if (misplaced := for_another_command(marked, "ablate")) is not None:
        raise misplaced
    content = _with({"name": path.stem, **marked.content}, seeds, train or {})
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _as_config_error(error, marked) from None
    base = _read_base(recipe.config, path) if recipe.config else None
    for location in _setting_locations(marked.content):
        if str(location[-1]) not in _SETTINGS:
            raise _unknown_setting(marked, location)
        if location[0] == "search" and location[-1] in _DEV_DATA:
            raise ConfigError(
                f"{location[-1]} cannot be searched: it changes the dev queries or what they are searched in",
                where=marked.where(location),
            )
    if base is not None:
        recipe = recipe.model_copy(update={"train": {**base.content, **recipe.train}})
    for index, own in enumerate(recipe.runs or [{}]):
        try:
            cross(recipe.train, recipe.grid, own, recipe.seeds)
        except RagcunCacheError as error:
            raise _placed(error, _places(("runs", index), marked, base)) from None
    for name, where in recipe.search.space.items() if recipe.search else ():
        try:
            cross(recipe.train, {name: where.examples()}, {}, recipe.seeds)
        except RagcunCacheError as error:
            raise _placed(error, _places(("search", "space"), marked, base)) from None
    return recipe


def _with(content: dict[str, Any], seeds: Sequence[int] | None, train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a recipe with seeds and settings from outside in place of its own."""
    for name in train:
        if name not in _SETTINGS:
            raise unknown_choice("setting", name, _SETTINGS)
    if seeds is not None:
        content["seeds"] = list(seeds)
    return {**content, "train": {**(content.get("train") or {}), **train}} if train else content


def expand(recipe: Recipe) -> list[PlannedRun]:
    """Return the runs of a recipe, each once, in the order of the recipe. Raises ConfigError if one cannot be."""
    return distinct(run for own in recipe.runs or [{}] for run in cross(recipe.train, recipe.grid, own, recipe.seeds))


def _read_base(config: Path, recipe: Path) -> MarkedYaml:
    """Read the file of settings that a recipe names, from the current folder or beside the recipe."""
    beside = recipe.parent / config
    base = read_yaml(config if config.exists() or not beside.exists() else beside)
    for name in base.content:
        if name not in _SETTINGS:
            raise _unknown_setting(base, (name,))
    return base


def _setting_locations(content: dict[str, Any]) -> Iterator[Location]:
    """Yield where in a recipe the name of a training setting is expected."""
    for section in ("train", "grid"):
        yield from ((section, name) for name in content.get(section) or ())
    for index, own in enumerate(content.get("runs") or ()):
        yield from (("runs", index, name) for name in own if name != "name")
    yield from (("search", "space", name) for name in (content.get("search") or {}).get("space", ()))


def _unknown_setting(marked: MarkedYaml, location: Location) -> RagcunCacheError:
    if location[-1] == "seed":
        return ConfigError("seed has a place of its own", where=marked.where(location), fix="seeds: 0-4")
    return unknown_choice("setting", str(location[-1]), _SETTINGS, where=marked.where(location))


def _as_config_error(error: ValidationError, marked: MarkedYaml) -> RagcunCacheError:
    # An unknown name first: it is why another is missing.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    location = first["loc"]
    name, where = str(location[-1]), marked.where(location)
    if first["type"] == "extra_forbidden" and len(location) == 1 and name in _SETTINGS:
        return ConfigError(
            f"{name} is a setting, which has no place of its own", where=where, fix=f"train: {{{name}: …}}"
        )
    if first["type"] == "extra_forbidden":
        owners: dict[int, type[BaseModel]] = {1: Recipe, 2: Search}
        return unknown_choice("key", name, owners.get(len(location), Range).model_fields, where=where)
    if first["type"] == "missing":
        return ConfigError(f"{name} is missing", where=where)
    name = ".".join(map(str, location))
    return ConfigError(f"{name} cannot be used", where=where, expected=first["msg"], found=repr(first["input"]))


def _places(nearest: Location, marked: MarkedYaml, base: MarkedYaml | None) -> Iterable[tuple[MarkedYaml, Location]]:
    """Return where a setting of the run may come from, nearest first."""
    yield from ((marked, prefix) for prefix in (nearest, ("grid",), ("train",)))
    if base is not None:
        yield base, ()
    yield marked, ()


def _placed(error: RagcunCacheError, places: Iterable[tuple[MarkedYaml, Location]]) -> RagcunCacheError:
    """Give ``error`` the line of the setting that it speaks of: all that ``TrainConfig`` raises name theirs."""
    words = error.problem.replace("'", " ").split()
    given = [place for place in places if not place[1] or place[1] in place[0].lines]
    named = (
        marked.where((*prefix, word)) for word in words for marked, prefix in given if (*prefix, word) in marked.lines
    )
    marked, prefix = given[0]
    where = next(named, marked.where(prefix))
    fix = "train: {dataset: COLLECTION}" if "missing" in words else error.fix
    return ConfigError(error.problem, where=where, expected=error.expected, found=error.found, fix=fix)
