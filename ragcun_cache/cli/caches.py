"""``ragcun-cache caches``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _caches() -> None:
    pass


@app.command("ls")
def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List every cache: whose vectors, of which encoder, how many, complete or not."""
    from ragcun_cache.cache import list_caches
    from ragcun_cache.home import Home

    caches = list_caches(Home.default().caches)
    if as_json:
        records = [
            {
                "folder": str(layout.folder),
                "rows": manifest.rows,
                **manifest.model_dump(mode="json", exclude={"shards"}),
            }
            for layout, manifest in caches
        ]
        typer.echo(json.dumps(records, indent=2))
        return
    for layout, manifest in caches:
        state = "complete" if manifest.complete else f"{manifest.rows:,} of {manifest.total_rows:,} rows"
        typer.echo(
            f"{manifest.collection} {manifest.role}: {manifest.rows:,} × {manifest.dim} {manifest.dtype}, "
            f"{manifest.vector_bytes / 1e6:,.1f} MB, {state}, {manifest.spec.get('model_id')} "
            f"{manifest.spec.get('precision')}, encoder {manifest.encoder} → {layout.folder}"
        )
    if not caches:
        typer.echo("no caches yet: ragcun-cache encode --dataset pydocs")
