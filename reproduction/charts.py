"""From rows to what the figures show."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.files import sha256_json
from reproduction.figures import Curve, Strip, draw_curves, draw_strips
from reproduction.plan import Plan
from reproduction.rows import MEAN, RAW, Row

STRIPS, CURVES = "reproduction_seeds.svg", "reproduction_epochs.svg"


def draw_figures(plan: Plan, rows: Mapping[str, Row], folder: Path, *, beside: Path) -> list[str]:
    """Write the figures that there are results for into ``folder``; return them as Markdown for a page in ``beside``.

    The figure of epochs is left out where no published row has several.
    """
    titles = {**plan.published.collections, MEAN: "mean of both" if len(plan.published.collections) == 2 else "mean"}
    raw = {name: float(rows[RAW].means(name).mean()) for name in titles} if RAW in rows else {}
    drawn = []
    if raw:
        draw_strips(_strips(plan, rows, list(titles)), titles, raw, folder / STRIPS)
        drawn.append(
            (STRIPS, "NDCG@10 of every seed (dots), the published figure (diamond) and the raw encoder (line), by row")
        )
    if curves := _curves(plan, rows):
        draw_curves(curves, raw.get(MEAN), folder / CURVES)
        drawn.append((CURVES, "NDCG@10 and the scale of the outputs over the epochs, by kind of head"))
    place = Path(os.path.relpath(folder, beside))
    return [f"![{about}]({(place / name).as_posix()})" for name, about in drawn]


def _strips(plan: Plan, rows: Mapping[str, Row], names: Sequence[str]) -> list[Strip]:
    """Return a strip for every published row but the raw encoder's, which is the line."""
    return [
        Strip(
            label=shown.published,
            fails=shown.fails,
            published=plan.published_row(shown.published).figures,
            ours={
                how: {name: rows[run].means(name) for name in names} if rows[run].n else {}
                for how, run in shown.runs.items()
            },
        )
        for shown in plan.rows
        if RAW not in shown.runs.values()
    ]


def _curves(plan: Plan, rows: Mapping[str, Row]) -> list[Curve]:
    """Return a curve for every published row of several epochs, those that differ in nothing else being one."""
    shown = {run: one.published for one in plan.rows for run in one.runs.values()}
    families: dict[str, list[Row]] = {}
    for row in rows.values():
        if row.config is not None and row.n:
            families.setdefault(_but_epochs(row), []).append(row)
    wanted = dict.fromkeys(_but_epochs(rows[run]) for run in shown if run in rows and rows[run].config and rows[run].n)
    curves = []
    for family in (families[key] for key in wanted):
        longest = max(family, key=_epochs)
        if _epochs(longest) < 2:
            continue
        published = {
            _epochs(row): plan.published_row(shown[row.label]).figures[MEAN] for row in family if row.label in shown
        }
        curves.append(
            Curve(
                title=_shared_name([row.label for row in family]),
                test={_epochs(row): row.means(MEAN) for row in family},
                published=published,
                dev=_by_epoch(longest, "dev_ndcg@10"),
                std_ratio=_by_epoch(longest, "output_std_ratio"),
            )
        )
    return curves


def _epochs(row: Row) -> int:
    return row.config.epochs if row.config else 0


def _but_epochs(row: Row) -> str:
    assert row.config is not None
    return sha256_json(row.config.model_dump(mode="json", exclude={"seed", "epochs"}))


def _by_epoch(row: Row, column: str) -> dict[int, NDArray[np.float64]]:
    found = {epoch: np.array(row.column(column, epoch)) for epoch in range(_epochs(row) + 1)}
    return {epoch: values for epoch, values in found.items() if len(values)}


def _shared_name(labels: Iterable[str]) -> str:
    """Return what rows of several epochs are called without the epoch: "respred, epochs=1" is "respred"."""
    names = [re.sub(r"[,\s]*\bepochs?[\s=]*\d+$", "", label) for label in labels]
    return min(names, key=len)
