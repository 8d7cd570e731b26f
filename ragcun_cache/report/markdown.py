"""The report as Markdown: the tables of the page, for places where nothing can be clicked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ragcun_cache.evaluation.leaderboard import Leaderboard
from ragcun_cache.evaluation.render import to_markdown
from ragcun_cache.markdown import escape, paragraphs, table
from ragcun_cache.report.boards import told_apart
from ragcun_cache.report.content import Report

_ABSENT = "–"

_Cost = tuple[float | None, int | None]
"""Seconds of training or choosing, and parameters."""


def render_markdown(report: Report) -> str:
    """Return leaderboards, costs, the last epoch of each row, geometry, and where the figures come from."""
    content = report.content
    parts = [
        f"# {content['title']}",
        content["subtitle"],
        "## Leaderboard",
        *(board["verdict"] for board in content["boards"]),
        to_markdown(report.boards).strip(),
        *_section("What quality costs", ["row", "seconds", "parameters"], _costs(report)),
        *_section("After the last epoch", ["row", "trained on", *_titles(content)], _last_epochs(content)),
    ]
    for place in content["geometry"]:
        titles = ["row", "dims", "effective rank", "mean cosine", "similarity", "relevant above random, sd"]
        parts += _section(f"Geometry of {place['title']}", titles, map(_geometry, place["systems"]))
    provenance = content["provenance"]
    parts.append("## Where these figures come from")
    parts.append("\n".join(f"- {name}: {escape('; '.join(values))}" for name, values in provenance["facts"]))
    parts.append("\n".join(["```sh", *provenance["commands"], "```"]))
    if content["left_out"]:
        parts += ["## What was left out", "\n".join(f"- {escape(note)}" for note in content["left_out"])]
    return paragraphs(*parts) + "\n"


def _section(title: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [[*map(escape, row)] for row in rows]
    return [f"## {title}", table([*map(escape, titles)], lines, figures=False)] if lines else []


def _costs(report: Report) -> list[list[str]]:
    """Return a line for each row of a leaderboard whose cost is known, the same one in two of them once."""
    found: dict[tuple[int, _Cost], tuple[str, Leaderboard]] = {}
    for board, content in zip(report.boards, report.content["boards"], strict=True):
        for row in content["rows"]:
            cost = row["seconds"], row["parameters"]
            if not row["raw"] and cost != (None, None):
                found.setdefault((row["series"], cost), (row["label"], board))
    labels = told_apart(list(found.values()))
    return [
        [label, _number(seconds, 1), _ABSENT if parameters is None else f"{parameters:,}"]
        for label, (_, (seconds, parameters)) in zip(labels, found, strict=True)
    ]


def _titles(content: dict[str, Any]) -> list[str]:
    return [chart["title"] for chart in content["training"]["measures"]]


def _last_epochs(content: dict[str, Any]) -> list[list[str]]:
    measures = [chart["measure"] for chart in content["training"]["measures"]]
    return [
        [run["label"], run["trained_on"], *(_last(run["measures"].get(name)) for name in measures)]
        for run in content["training"]["runs"]
    ]


def _last(curve: dict[str, list[float]] | None) -> str:
    return _ABSENT if curve is None else f"{curve['mean'][-1]:.4g}"


def _geometry(system: dict[str, Any]) -> list[str]:
    return [
        system["label"],
        str(system["dim"]),
        _number(system["effective_rank"], 0),
        _number(system["mean_cosine"], 3),
        system["similarity"],
        _number(system["separation"], 2),
    ]


def _number(value: float | None, digits: int) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"
