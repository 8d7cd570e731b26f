"""``ragcun-cache results``: what is in the results store, as a list or as one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ragcun_cache.home import Home

app = typer.Typer(no_args_is_help=True, help="List and export evaluation results.")

_FORMATS = ("csv", "json", "parquet")


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False) -> None:
    """List the results: collection, system, NDCG@10, date and key."""
    from ragcun_cache.evaluation.store import ResultStore, stored_results

    results = stored_results(ResultStore(Home.default().results))
    lines = [
        {
            "key": result.key,
            "collection": f"{result.setting.collection}/{result.setting.split}",
            "system": result.system.name,
            "route": result.route,
            **dict(list(result.metrics.items())[:1]),
            "date": result.date,
        }
        for result in results
    ]
    if as_json:
        typer.echo(json.dumps(lines, indent=2, ensure_ascii=False))
        return
    for line, result in zip(lines, results, strict=True):
        name, value = next(iter(result.metrics.items()))
        typer.echo(f"{line['collection']}  {line['system']}  {name} {value:.4f}  {result.date}  {result.key}")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    to: Annotated[str, typer.Option(help="csv, json or parquet.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write every result, a row each, into one file."""
    from ragcun_cache.errors import ConfigError, unknown_choice
    from ragcun_cache.evaluation.store import ResultStore, runs_frame, stored_results
    from ragcun_cache.files import atomic_file, write_json

    if to not in _FORMATS:
        raise unknown_choice("format", to, _FORMATS)
    if file.exists() and not force:
        raise ConfigError("the file is there already", where=file, fix="another name, or --force to replace it")
    results = stored_results(ResultStore(Home.default().results))
    frame = runs_frame(results)
    if to == "json":
        # With their structure: in a table it is text.
        write_json(file, [{"key": result.key, "route": result.route, **result.content()} for result in results])
    else:
        with atomic_file(file) as handle:
            if to == "csv":
                frame.drop("record").write_csv(handle)
            else:
                frame.write_parquet(handle)
    typer.echo(f"{len(frame)} results written to {file}")
