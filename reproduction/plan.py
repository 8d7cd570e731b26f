"""What the page shows: the published figures, and which runs of the recipes stand beside them, read from two files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragcun_cache.ablation.recipe import Recipe, load_recipe
from ragcun_cache.errors import ConfigError, unknown_choice
from ragcun_cache.marked_yaml import Location, MarkedYaml, read_yaml
from reproduction.rows import MEAN, RAW, planned_rows

# A mean that was published to four digits, of figures that were, may be off by as much.
_ROUNDED = 1.01e-4


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Content = TypeVar("_Content", bound=_Frozen)


class PublishedRow(_Frozen):
    """Published NDCG@10 by collection and ``mean``, either of which may be all that is known, and where it is from."""

    name: str
    scores: dict[str, float] = Field(min_length=1)
    source: str

    @property
    def figures(self) -> dict[str, float]:
        """Return ``scores``, and their mean if it was not published."""
        return {**self.scores, MEAN: self.scores.get(MEAN, sum(self.scores.values()) / len(self.scores))}


class PublishedResidual(_Frozen):
    """Published figures of a predictor's residual by epoch, called as the columns of ``metrics.parquet``."""

    source: str
    first_batch: dict[str, float] = {}
    epochs: dict[int, dict[str, float]]


class Published(_Frozen):
    """The published table; ``collections`` are its columns by name, with their titles."""

    collections: dict[str, str] = Field(min_length=1)
    rows: list[PublishedRow]
    residual: PublishedResidual | None = None


class ShownRow(_Frozen):
    """The runs that stand for the row ``published``. ``note`` is for the reader; it must say why if there is no run."""

    published: str
    as_ran: str | None = None
    as_written: str | None = None
    fails: bool = False
    note: str | None = None

    @property
    def runs(self) -> dict[str, str]:
        """The runs by what they stand for."""
        return {how: run for how, run in (("as ran", self.as_ran), ("as written", self.as_written)) if run}


class Cause(_Frozen):
    """A claim about why ``failed`` fails, and the run in which the cause is ``removed``.

    ``side`` is what the claim says of ``removed``: that it scores ``higher`` than ``failed``, or the ``same``.
    """

    row: str
    claim: str
    failed: str
    removed: str
    side: Literal["higher", "same"]


class _PageFile(_Frozen):
    published: Path
    recipes: list[Path] = Field(min_length=1)
    null_recipes: list[Path] = []
    untrained: dict[int, str] = {}
    rows: list[ShownRow]
    residual: str | None = None
    causes: list[Cause] = []


class Plan(_Frozen):
    """Everything that the page is made from but the results. ``untrained`` has the null row of every output size."""

    published: Published
    recipes: list[Recipe]
    untrained: dict[int, str]
    rows: list[ShownRow]
    residual: str | None
    causes: list[Cause]

    def published_row(self, name: str) -> PublishedRow:
        """Return the published row called ``name``."""
        return next(row for row in self.published.rows if row.name == name)


def load_plan(path: Path, *, seeds: Sequence[int] | None = None, train: Mapping[str, Any] | None = None) -> Plan:
    """Read the file of the page, the published figures and the recipes that it names (from beside it).

    ``seeds`` take the place of those of the recipes, not of the null recipes; ``train`` goes over the settings of all.

    Raises:
        ConfigError: a key, a published row or a run is unknown, with its line; or a published row is left out.

    """
    page, marked = _read(path, _PageFile)
    published = load_published(path.parent / page.published)
    recipes = [load_recipe(path.parent / file, seeds=seeds, train=train) for file in page.recipes]
    recipes += [load_recipe(path.parent / file, train=train) for file in page.null_recipes]
    known = {RAW, *(label for recipe in recipes for label in planned_rows(recipe))}
    for location, run in _runs_named(page):
        if run not in known:
            raise unknown_choice("run", run, known, where=marked.where(location))
    _check_rows(page, published, marked)
    return Plan(
        published=published,
        recipes=recipes,
        untrained=page.untrained,
        rows=page.rows,
        residual=page.residual,
        causes=page.causes,
    )


def load_published(path: Path) -> Published:
    """Read published figures. Raises ConfigError that names the line, also for a figure of no collection."""
    published, marked = _read(path, Published)
    for index, row in enumerate(published.rows):
        where = marked.where(("rows", index, "scores"))
        known = [figure for name, figure in row.scores.items() if name != MEAN]
        if set(row.scores) - {MEAN} not in (set(), set(published.collections)):
            raise ConfigError(
                f"the figures of {row.name!r} are not those of the table",
                where=where,
                expected=f"{', '.join(published.collections)}; or {MEAN} alone",
                found=", ".join(row.scores),
            )
        if known and abs(sum(known) / len(known) - row.figures[MEAN]) > _ROUNDED:
            raise ConfigError(f"the {MEAN} of {row.name!r} is not that of its figures", where=where)
        if any(other.name == row.name for other in published.rows[:index]):
            raise ConfigError(f"two rows are called {row.name!r}", where=marked.where(("rows", index)))
    return published


def _runs_named(page: _PageFile) -> Iterator[tuple[Location, str]]:
    """Yield every name of a run in the file, and where it stands."""
    for size, run in page.untrained.items():
        yield ("untrained", str(size)), run
    for index, row in enumerate(page.rows):
        for how, run in row.runs.items():
            yield ("rows", index, how.replace(" ", "_")), run
    if page.residual:
        yield ("residual",), page.residual
    for index, cause in enumerate(page.causes):
        yield ("causes", index, "failed"), cause.failed
        yield ("causes", index, "removed"), cause.removed


def _check_rows(page: _PageFile, published: Published, marked: MarkedYaml) -> None:
    names = [row.name for row in published.rows]
    for index, shown in enumerate(page.rows):
        where = marked.where(("rows", index))
        if shown.published not in names:
            raise unknown_choice("published row", shown.published, names, where=where)
        if not shown.runs and not shown.note:
            raise ConfigError("no run stands for the row", where=where, fix="say why: note: ...")
    shown_names = {row.published for row in page.rows}
    if missing := [name for name in names if name not in shown_names]:
        raise ConfigError(
            "published rows would not be on the page", where=marked.where(("rows",)), found=", ".join(missing)
        )


def _read(path: Path, model: type[_Content]) -> tuple[_Content, MarkedYaml]:
    """Read a YAML file as a ``model``. Raises ConfigError that names the line of what does not fit."""
    marked = read_yaml(path)
    try:
        return model.model_validate(marked.content), marked
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{'.'.join(map(str, first['loc']))} cannot be used",
            where=marked.where(first["loc"]),
            expected=first["msg"],
            found=repr(first["input"]),
        ) from None
