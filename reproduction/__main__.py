"""The command: read what the recipes have given, and write the page and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragcun_cache.errors import RagcunCacheError
from ragcun_cache.files import write_text
from ragcun_cache.home import Home
from ragcun_cache.marked_yaml import read_settings
from ragcun_cache.training.seeds import parse_seeds
from reproduction.causes import find_out
from reproduction.charts import draw_figures
from reproduction.page import Content, render_page
from reproduction.plan import load_plan
from reproduction.rows import read_rows

_REPOSITORY = Path(__file__).resolve().parents[1]


def main(
    plan: Annotated[Path, typer.Option(help="What the page shows.")] = _REPOSITORY / "reproduction" / "page.yaml",
    seeds: Annotated[str | None, typer.Option(help="Seeds in place of the recipes', such as 0-9.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value: as it was set for `ragcun-cache ablate`; repeatable.")
    ] = None,
    page: Annotated[Path, typer.Option(help="The page to write; figures go beside it.")] = _REPOSITORY
    / "docs"
    / "reproduction.md",
) -> None:
    """Write the page of the published table from the results that there are; nothing is trained."""
    try:
        read = load_plan(plan, seeds=parse_seeds(seeds) if seeds else None, train=read_settings(set_))
        home = Home.default()
        rows = read_rows(read.recipes, home)
        figures = draw_figures(read, rows, page.parent / "figures", beside=page.parent)
        write_text(page, render_page(Content(read, rows, find_out(read.causes, rows), figures, home)))
    except RagcunCacheError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(page)


if __name__ == "__main__":
    typer.run(main)
