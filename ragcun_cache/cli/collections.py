"""``ragcun-cache collections``: which collections there are, fetching one, checking one."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ragcun_cache.home import Home

app = typer.Typer(
    no_args_is_help=True,
    help="List, fetch and check collections, take titles as queries.",
)


def _rows(home: Home) -> list[dict[str, Any]]:
    """Return one row a collection, registered or on disk, sorted by name."""
    from ragcun_cache.collections import REGISTRY, collections_on_disk
    from ragcun_cache.collections.registry import test_split_of

    on_disk = collections_on_disk(home)
    rows = []
    for name in sorted({*REGISTRY, *on_disk, "pydocs"}):
        published = REGISTRY.get(name)
        rows.append(
            {
                "name": name,
                "passages": published.passages if published else None,
                "test_queries": published.test_queries if published else None,
                "test_split": test_split_of(name),
                "in_base_training": published.in_base_training if published else None,
                "licence": published.licence if published else None,
                "folder": str(on_disk[name]) if name in on_disk else None,
            }
        )
    return rows


def _state(row: dict[str, Any]) -> str:
    from ragcun_cache.collections import REGISTRY

    if row["folder"]:
        return str(row["folder"])
    if row["name"] not in REGISTRY:
        return "made on first use"
    return "fetch" if REGISTRY[row["name"]].archive else "not distributed"


@app.command("ls")
def list_collections(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """List every registered collection and every one that is on this machine."""
    rows = _rows(Home.default())
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "passages", "queries", "split", "in base training", "where", box=None)
    for column in table.columns[:4]:
        column.no_wrap = True
    for row in rows:
        sizes = [f"{row[key]:,}" if row[key] is not None else "" for key in ("passages", "test_queries")]
        table.add_row(row["name"], *sizes, row["test_split"], "yes" if row["in_base_training"] else "", _state(row))
    Console().print(table)


@app.command("fetch")
def fetch_collection(
    name: Annotated[str, typer.Argument(help="A registered name, a group such as cqadupstack, or pydocs.")],
) -> None:
    """Put a collection on this machine, unless it is there already, and print its folder."""
    from ragcun_cache.collections import find_collection, members

    home = Home.default()
    for member in members(name):
        collection = find_collection(member, home)
        typer.echo(f"{collection.name}\t{collection.folder}")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A registered name, or the folder of a collection.")],
) -> None:
    """Read a whole collection and say what is wrong with it. Flaws are counted; errors stop with exit code 2."""
    from ragcun_cache.collections import check_collection, find_collection

    collection = find_collection(name, Home.default(), download=False)
    flaws = check_collection(collection)
    for flaw in flaws:
        typer.echo(str(flaw))
    splits = ", ".join(collection.splits()) or "no splits"
    typer.echo(f"{collection.name} can be used ({splits}); {len(flaws)} kind(s) of flaw")


@app.command("titles")
def make_title_pairs(
    name: Annotated[str, typer.Argument(help="A registered name, or the folder of a collection.")],
    whole: Annotated[
        bool, typer.Option("--whole", help="Passages keep their titles: only titles are to be encoded then.")
    ] = False,
) -> None:
    """Make a collection whose train queries are the titles of another: pairs to learn from without judgements."""
    from ragcun_cache.collections import find_collection, title_pairs

    home = Home.default()
    made = title_pairs(find_collection(name, home), home, whole=whole)
    typer.echo(f"{made.name}\t{made.folder}")
