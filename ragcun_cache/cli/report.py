"""``ragcun-cache report``: one page that shows everything that is known of the results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ragcun_cache.home import Home


def report(
    out: Annotated[Path | None, typer.Option(help="HTML file to write. Default: report.html in the home.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only these collections. Repeat it, or divide by commas.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Write a self-contained HTML page: leaderboard, curves, cost, geometry, and every query with its passages.

    It needs no network. Heads are applied to the cached vectors again, for spectra and passages; no text is encoded.
    """
    from ragcun_cache.evaluation.store import ResultStore, stored_results
    from ragcun_cache.files import write_text
    from ragcun_cache.report.content import build_report
    from ragcun_cache.report.markdown import render_markdown
    from ragcun_cache.report.page import render_page

    home = Home.default()
    store = ResultStore(home.results)
    results = stored_results(store, dataset)
    options = [
        ("--dataset", ",".join(dataset or [])),
        ("--out", out and str(out)),
        ("--markdown", markdown and str(markdown)),
    ]
    words = ["ragcun-cache", "report", *(word for name, value in options if value for word in (name, value))]
    made = build_report(results, store, home, written_by=shlex.join(words))
    page = out or home.root / "report.html"
    text = render_page(made.content)
    write_text(page, text)
    typer.echo(f"{page}: {len(text.encode()) / 1e6:.1f} MB, {len(results):,} results")
    if markdown is not None:
        write_text(markdown, render_markdown(made))
        typer.echo(str(markdown))
    if open_:
        typer.launch(page.resolve().as_uri())
