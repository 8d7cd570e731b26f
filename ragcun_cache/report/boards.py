"""The leaderboards, as content of the page: what their rows are made of, and what they say in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ragcun_cache.evaluation.leaderboard import Cell, Leaderboard, Row
from ragcun_cache.evaluation.render import heading, notes
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.system import Route
from ragcun_cache.report.sources import Sources
from ragcun_cache.retrieval.index import FLAT

SIGNIFICANT = 0.05
RAW_SERIES = -1
_READING = (
    "Mean ± sd over seeds. Δ raw, p and W/T/L (queries won, tied, lost) compare per-query scores, averaged over the "
    "seeds, with those of the raw encoder: p is of the two-sided paired randomisation test, corrected by Holm's method "
    "for the collections of the row, not for the number of rows. Pointing at a difference shows its 95 % bootstrap "
    "interval."
)


Series = dict[tuple[int, str], int]
"""(number of a leaderboard, label of a row in it) -> number of the row among the series of all charts."""


def number_series(boards: Sequence[Leaderboard], sources: Sources) -> Series:
    """Return the number by which a row has one colour and shape in every chart; the raw encoder has -1.

    Rows of two leaderboards are one if label, encoder and route of their results agree: what was never trained stands
    in the tables of both routes, but in-domain heads are others than zero-shot ones of the same label.
    """
    numbers: dict[tuple[str, str, Route | None], int] = {}
    series: Series = {}
    for place, board in enumerate(boards):
        for row in board.rows:
            (route,) = {result.route for result in row_results(row, sources)}
            number = RAW_SERIES if row.raw else numbers.setdefault((row.label, board.encoder, route), len(numbers))
            series[place, row.label] = number
    return series


def told_apart(entries: Sequence[tuple[str, Leaderboard]]) -> list[str]:
    """Return the labels of rows of these leaderboards; equal ones get what sets their leaderboards apart."""
    told = []
    for label, board in entries:
        same = [_marks(other) for other_label, other in entries if other_label == label]
        own = [one for one, *others in zip(_marks(board), *same, strict=True) if one and set(others) != {one}]
        told.append(", ".join([label, *own]))
    return told


def _marks(board: Leaderboard) -> tuple[str | None, ...]:
    index = None if board.index == FLAT else board.index
    return board.metric, f"{board.model} ({board.encoder})", index, board.route


def row_results(row: Row, sources: Sources) -> list[Result]:
    """Return every result behind a row: one a collection and seed."""
    return [sources.results[key] for cell in row.cells.values() for key in cell.results]


def board_content(board: Leaderboard, number: int, series: Series, sources: Sources) -> dict[str, Any]:
    """Return one leaderboard as JSON content, figures at full precision."""
    return {
        "id": f"board{number}",
        "title": heading(board),
        "metric": board.metric,
        "verdict": verdict(board),
        "notes": [_READING, *notes(board)[1:]],
        "columns": [
            {"title": one.title, "queries": one.queries, "in_base_training": one.in_base_training}
            for one in board.columns
        ],
        "rows": [_row_content(row, series[number, row.label], row_results(row, sources)) for row in board.rows],
    }


def _row_content(row: Row, series: int, results: Sequence[Result]) -> dict[str, Any]:
    system = results[0].system
    costs = [result.cost for result in results if result.cost is not None]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    parameters = [cost.parameters for cost in costs if cost.parameters is not None]
    places = dict.fromkeys(f"{one.collection}/{one.split}" for result in results for one in result.system.trained_on)
    return {
        "label": row.label,
        "raw": row.raw,
        "series": series,
        "seeds": row.seeds,
        "arch": system.arch,
        "trained_on": ", ".join(places) or "nothing",
        "seconds": fmean(seconds) if seconds else None,
        "parameters": max(parameters) if parameters else None,
        "cells": {title: _cell_content(cell, row) for title, cell in row.cells.items()},
        "mean": row.mean,
        "mean_difference": row.mean_difference,
    }


def _cell_content(cell: Cell, row: Row) -> dict[str, Any]:
    against = cell.against_raw
    return {
        "mean": cell.mean,
        "sd": cell.sd,
        "difference": against and against.difference,
        "low": against and against.interval[0],
        "high": against and against.interval[1],
        "p": against and against.p_holm,
        "p_uncorrected": against and against.p_value,
        "wins": against and against.wins,
        "ties": against and against.ties,
        "losses": against and against.losses,
        "remarks": _remarks(cell, row),
    }


def _remarks(cell: Cell, row: Row) -> list[str]:
    remarks = [f"{cell.seeds} of {row.seeds} seeds"] if cell.seeds < row.seeds else []
    if cell.against_exact is not None:
        exact = cell.against_exact
        remarks.append(f"index: recall@10 {exact.recall:.4f}, NDCG@10 {exact.ndcg_difference:+.4f}")
    # Of one kind alone, seen or unseen, it is the figure itself.
    if len(cell.gold) > 1:
        remarks += [
            f"{'seen' if part.seen else 'unseen'} gold {part.mean:.4f}, raw {part.raw:.4f} ({part.queries})"
            for part in cell.gold
        ]
    return remarks


def verdict(board: Leaderboard) -> str:
    """Say in a sentence how many rows are better or worse than raw, counting only what is significant."""
    rows = [row for row in board.rows if not row.raw]
    if not rows:
        return "Only the raw encoder has been evaluated."
    signs = [
        {
            cell.against_raw.difference > 0
            for cell in row.cells.values()
            if cell.against_raw is not None and cell.against_raw.p_holm < SIGNIFICANT
        }
        for row in rows
    ]
    better, worse = sum(True in found for found in signs), sum(False in found for found in signs)
    total = "the one row" if len(rows) == 1 else f"{len(rows)} rows"
    return (
        f"Of {total} beside raw, {better or 'none'} {'is' if better in (0, 1) else 'are'} significantly better than "
        f"the raw encoder on a collection, {worse or 'none'} significantly worse (p < {SIGNIFICANT:g}, Holm-corrected)."
    )
