"""A leaderboard for people: in the terminal and as Markdown. Figures are rounded here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragcun_cache.evaluation.leaderboard import Cell, Column, Leaderboard, Row
from ragcun_cache.evaluation.significance import Comparison, p_text
from ragcun_cache.evaluation.system import Route
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.retrieval.index import FLAT

if TYPE_CHECKING:
    from rich.table import Table

    from ragcun_cache.evaluation.results import Result
    from ragcun_cache.home import Home

_MARK = "†"
_ABSENT = "–"
_BASELINE = "◇"
_ROUTES: dict[Route, str] = {
    "zero-shot": "Zero-shot: no judgement of these collections had a part in a system.",
    "in-domain": "In-domain: trained or chosen by judgements of another split of the same collection.",
}


def to_markdown(leaderboards: Sequence[Leaderboard]) -> str:
    """Return the tables as GitHub-flavoured Markdown, each with the notes it needs to be read alone."""
    parts = []
    for board in leaderboards:
        titles = ["system", "seeds", *map(_title, board.columns), "mean"]
        rows = [[_escape(text).replace("\n", "<br>") for text in _texts(row, board)] for row in board.rows]
        told = "\n".join(_escape(note) + "  " for note in notes(board))
        parts += [f"### {_escape(heading(board))}", table(titles, rows, figures=False), told]
    return paragraphs(*parts) + "\n"


def provenance_markdown(results: Sequence[Result], home: Home) -> str:
    """Return where the figures come from, as Markdown: vectors, training, seeds, dates, machines, versions, commits.

    What results do not say of their vectors and heads is read off the caches and heads below ``home``.
    """
    from ragcun_cache.evaluation.origin import encoders, listed, training

    seeds: dict[str, set[int]] = {}
    for result in results:
        system = result.system
        if system.seed is not None:
            seeds.setdefault(system.label, set()).add(system.seed)
    made_with = {
        "date": [result.date[:10] for result in results],
        "machine": [listed(result.machine) for result in results],
        "versions": [listed(result.versions) for result in results],
        "commit": [result.commit or "not from a checkout" for result in results],
    }
    lines = ["### Where these figures come from", ""]
    lines += [f"- encoder: {found}" for found in encoders(results, home)]
    lines += [f"- trained or chosen by: {found}" for found in training(results, home)]
    lines += [f"- seeds of {name}: {', '.join(map(str, sorted(found)))}" for name, found in sorted(seeds.items())]
    lines += [f"- {name}: {'; '.join(sorted(set(found)))}" for name, found in made_with.items()]
    return "\n".join(lines) + "\n"


def to_table(board: Leaderboard) -> Table:
    """Return the table for rich to print."""
    from rich.table import Table
    from rich.text import Text

    # As text, so that the square brackets of a metric or a name are not read as markup.
    table = Table(
        title=Text(heading(board)), caption=Text("\n".join(notes(board))), caption_justify="left", show_lines=True
    )
    table.add_column("system", overflow="fold")
    table.add_column("seeds", justify="right")
    for column in board.columns:
        table.add_column(Text(_title(column)), justify="right")
    table.add_column("mean", justify="right")
    for row in board.rows:
        table.add_row(*(Text(text) for text in _texts(row, board)), style="bold" if row.raw else "")
    return table


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[")


def heading(board: Leaderboard) -> str:
    """Return what sets a table apart: metric, encoder, index unless it is exact, splits unless official, route."""
    index = None if board.index == FLAT else board.index
    splits = None if board.official else "splits other than the official"
    return " · ".join(filter(None, (board.metric, f"{board.model} ({board.encoder})", index, splits, board.route)))


def _title(column: Column) -> str:
    return f"{column.title}{_MARK if column.in_base_training else ''} ({column.queries})"


def _texts(row: Row, board: Leaderboard) -> list[str]:
    cells = [_cell_text(row.cells.get(column.title), row) for column in board.columns]
    mean = _ABSENT if row.mean is None else f"{row.mean:.4f}"
    if row.mean_difference is not None:
        mean += f"\n{row.mean_difference:+.4f}"
    return [row.label, _ABSENT if row.raw else str(row.seeds), *cells, mean]


def _cell_text(cell: Cell | None, row: Row) -> str:
    if cell is None:
        return _ABSENT
    lines = [f"{cell.mean:.4f}" if cell.sd is None else f"{cell.mean:.4f} ± {cell.sd:.4f}"]
    if cell.seeds < row.seeds:
        lines[0] += f" ({cell.seeds} of {row.seeds} seeds)"
    if cell.against_raw is not None:
        lines += _comparison_lines(cell.against_raw)
    if cell.against_baseline is not None:
        first, *rest = _comparison_lines(cell.against_baseline)
        lines += [f"{_BASELINE} {first}", *rest]
    if cell.against_exact is not None:
        exact = cell.against_exact
        lines.append(f"index: recall@10 {exact.recall:.4f}, NDCG@10 {exact.ndcg_difference:+.4f}")
    for part in cell.gold:
        lines.append(f"{'seen' if part.seen else 'unseen'} gold ({part.queries}): {part.mean:.4f}, raw {part.raw:.4f}")
    return "\n".join(lines)


def _comparison_lines(found: Comparison) -> list[str]:
    low, high = found.interval
    return [
        f"{found.difference:+.4f} {p_text(found.p_holm)}",
        f"({low:+.4f}, {high:+.4f})",
        f"{found.wins}/{found.ties}/{found.losses}",
    ]


def notes(board: Leaderboard) -> list[str]:
    """Return what a reader of the table must know, a sentence or two each."""
    found = [
        (
            "Mean ± sd over seeds; below it, for per-query scores averaged over seeds, the difference to the raw "
            "encoder, p of the two-sided paired randomisation test (corrected by Holm's method for the collections of "
            "the row, not for the number of rows), the 95 % bootstrap interval of the difference, and queries "
            "won/tied/lost. In parentheses: judged queries."
        )
    ]
    if board.baseline is not None:
        found.append(f"{_BASELINE} The same against {board.baseline}.")
    if any(cell.gold for row in board.rows for cell in row.cells.values()):
        found.append(
            "Seen gold: queries with a relevant passage that was relevant to a query of the training split as well; "
            "unseen gold: the others."
        )
    if board.index != FLAT:
        found.append(
            "Index: share of the exact search's ten best passages that the index finds, and what it costs in NDCG@10."
        )
    if board.route is not None:
        found.append(_ROUTES[board.route])
    if any(column.in_base_training for column in board.columns):
        found.append(f"{_MARK} The encoder was trained on this collection: not zero-shot.")
    if board.metric.endswith("[sample]"):
        found.append("Sampled corpora are easier than full ones: never compare these figures with published ones.")
    return found
