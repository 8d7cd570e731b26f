"""What a report says, as JSON content: the page and the Markdown show nothing that is not in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ragcun_cache import __version__
from ragcun_cache.evaluation.leaderboard import Cell, Leaderboard, Row, build_leaderboards
from ragcun_cache.evaluation.results import Result, Setting
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.home import Home
from ragcun_cache.progress import Advance, progress
from ragcun_cache.report.boards import RAW_SERIES, Series, board_content, number_series, told_apart
from ragcun_cache.report.geometry import MAX_ROWS, draw_sample, measure_geometry
from ragcun_cache.report.provenance import provenance_content
from ragcun_cache.report.queries import MAX_SCORED, MAX_SEARCHED, Compared, queries_content
from ragcun_cache.report.sources import Sources
from ragcun_cache.report.training import training_content
from ragcun_cache.retrieval.index import FLAT

MAX_BYTES = 8_000_000
"""What texts and passages may take of the page; queries lose their passages until they fit."""


@dataclass(frozen=True)
class Report:
    """The leaderboards of a report, and all of its content."""

    boards: list[Leaderboard]
    content: dict[str, Any]


def build_report(results: Sequence[Result], store: ResultStore, home: Home, *, written_by: str) -> Report:
    """Gather what there is to say about ``results``; what is no longer on this machine is left out, and named.

    Args:
        results: at least one, with the raw encoder on every collection among them.
        store: where their per-query scores are.
        home: where heads, caches and collections are.
        written_by: the command that asked for it.

    Raises:
        EvaluationError: a collection has no result of the raw encoder.

    """
    sources = Sources(results, store, home)
    boards = build_leaderboards(results, store)
    series = number_series(boards, sources)
    settings = {result.setting.sha256: result.setting for result in results}
    titles = {
        column.setting: " · ".join(filter(None, (column.title, _index_name(settings[column.setting]))))
        for board in boards
        for column in board.columns
    }
    compared = {key: _compared(key, boards, series, sources) for key in settings}
    with progress("report", "steps", len(settings) * 2) as advance:
        geometry = [
            one
            for key, setting in settings.items()
            if (one := _geometry(setting, titles[key], compared[key], sources, advance))
        ]
        queries = []
        for key, setting in settings.items():
            raw, *rows = compared[key]
            if rows:
                queries.append(queries_content(setting, titles[key], raw, rows, sources, MAX_BYTES // len(settings)))
            advance(1)
    content = {
        "title": _title(boards),
        "subtitle": f"Written by ragcun-cache {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        "tiles": _tiles(boards, results, series),
        "boards": [board_content(board, number, series, sources) for number, board in enumerate(boards)],
        "training": training_content(boards, series, sources),
        "geometry": geometry,
        "geometry_note": (
            f"Shown are raw and the {MAX_SEARCHED} best rows of each collection, on at most {MAX_ROWS:,} passages."
        ),
        "queries": queries,
        "queries_note": (
            f"Raw beside the {MAX_SCORED} best rows of each collection, {MAX_SEARCHED} of them with passages."
        ),
        "provenance": provenance_content(boards, results, sources, written_by),
    }
    # Last, because gathering the rest is what finds out.
    content["left_out"] = list(dict.fromkeys(sources.left_out))
    return Report(boards, content)


def _index_name(setting: Setting) -> str | None:
    return None if setting.config.index == FLAT else setting.config.index


def _title(boards: Sequence[Leaderboard]) -> str:
    models = dict.fromkeys(board.model for board in boards)
    return f"What heads make of {', '.join(models)}"


def _tiles(boards: Sequence[Leaderboard], results: Sequence[Result], series: Series) -> list[tuple[str, str]]:
    collections = {result.setting.collection for result in results}
    systems = {result.system.sha256 for result in results if not result.system.is_raw}
    rows = set(series.values()) - {RAW_SERIES}
    tiles = [
        (str(len(collections)), "collection" if len(collections) == 1 else "collections"),
        (str(len(rows)), "rows beside raw"),
        (str(len(systems)), "systems, seeds apart"),
        (f"{len(results):,}", "evaluations"),
    ]
    raw = next(row for row in boards[0].rows if row.raw)
    if raw.mean is not None:
        tiles.append((f"{raw.mean:.4f}", f"raw encoder, mean {boards[0].metric.upper()}"))
    gains = [(row.mean_difference, row.label) for row in boards[0].rows if row.mean_difference is not None]
    if gains:
        gain, label = max(gains)
        tiles.append((f"{gain:+.4f}".replace("-", "−"), f"best mean difference: {label.split(', ')[0]}"))
    return tiles


def _compared(setting: str, boards: Sequence[Leaderboard], series: Series, sources: Sources) -> list[Compared]:
    """Return the raw encoder, then the rows of this setting, best first, each once."""
    found: dict[int, tuple[float, Row, Cell, Leaderboard]] = {}
    for place, board in enumerate(boards):
        for column in board.columns:
            if column.setting == setting:
                for row in board.rows:
                    if cell := row.cells.get(column.title):
                        rank = float("inf") if row.raw else cell.mean
                        found.setdefault(series[place, row.label], (rank, row, cell, board))
    labels = told_apart([(row.label, board) for _, row, _, board in found.values()])
    ranked = [
        (rank, Compared(label, number, tuple(sources.results[key] for key in cell.results)))
        for label, (number, (rank, _, cell, _)) in zip(labels, found.items(), strict=True)
    ]
    return [one for _, one in sorted(ranked, key=lambda entry: (-entry[0], entry[1].label))]


def _geometry(
    setting: Setting, title: str, compared: Sequence[Compared], sources: Sources, advance: Advance
) -> dict[str, Any] | None:
    subject = sources.subject(setting)
    advance(1)
    if subject is None:
        return None
    sample = draw_sample(subject)
    systems = []
    for one in compared[: MAX_SEARCHED + 1]:
        result = one.results[0]
        encode = sources.encode(result)
        if encode is not None and result.system.similarity is not None:
            measured = measure_geometry(subject, sample, encode, result.system.similarity)
            systems.append({"label": one.label, "series": one.series, **measured})
    return {
        "title": title,
        "passages": len(sample.passage_n),
        "relevant": len(sample.relevant_p2),
        "random": len(sample.random_p2),
        "systems": systems,
    }
