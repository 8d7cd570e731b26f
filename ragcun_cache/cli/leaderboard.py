"""``ragcun-cache leaderboard``: the tables of everything in the results store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcun_cache.home import Home

if TYPE_CHECKING:
    from ragcun_cache.evaluation.results import Result
    from ragcun_cache.evaluation.store import ResultStore


def leaderboard(
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only these collections. Repeat it, or divide by commas.")
    ] = None,
    metric: Annotated[str, typer.Option(help="ndcg@10, map@100, recall@100 or mrr@10.")] = "ndcg@10",
    baseline: Annotated[
        str | None, typer.Option(help="Also compare every row with this one: its label, a run name, or a pattern.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
) -> None:
    """Show every stored result, the raw encoder first, one table for each encoder, index and route."""
    from ragcun_cache.errors import unknown_choice
    from ragcun_cache.evaluation.metrics import METRICS
    from ragcun_cache.evaluation.store import ResultStore, stored_results

    if metric not in METRICS:
        raise unknown_choice("metric", metric, METRICS)
    home = Home.default()
    store = ResultStore(home.results)
    results = stored_results(store, dataset)
    show(results, store, home, metric=metric, baseline=baseline, as_json=as_json, markdown=markdown)


def show(
    results: Sequence[Result],
    store: ResultStore,
    home: Home,
    *,
    metric: str = "ndcg@10",
    baseline: str | None = None,
    as_json: bool,
    markdown: Path | None,
    title: str = "Results",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print the leaderboards of ``results``, as tables or as JSON, and write them as Markdown if asked to.

    ``title`` is that of the Markdown page; where its vectors and heads come from is read off ``home``. ``more`` is
    content of the JSON that goes before theirs.
    """
    from ragcun_cache.evaluation.leaderboard import as_json as to_json
    from ragcun_cache.evaluation.leaderboard import build_leaderboards
    from ragcun_cache.files import write_text

    boards = build_leaderboards(results, store, metric=metric, baseline=baseline)
    if markdown is not None:
        from ragcun_cache.evaluation.render import provenance_markdown, to_markdown

        command = "Written by `ragcun-cache leaderboard`, `eval` or `ablate` with `--markdown`; do not edit."
        parts = [f"# {title}", command, to_markdown(boards), provenance_markdown(results, home)]
        write_text(markdown, "\n\n".join(part.strip() for part in parts) + "\n")
    if as_json:
        content = {
            **(more or {}),
            "leaderboards": [to_json(board) for board in boards],
            "results": [{"key": result.key, **result.model_dump(mode="json")} for result in results],
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from ragcun_cache.evaluation.render import to_table

    console = Console()
    for board in boards:
        console.print(to_table(board))
