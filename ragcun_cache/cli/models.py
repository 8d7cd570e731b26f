"""``ragcun-cache models``."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Fetch encoder weights.")


@app.callback()
def _models() -> None:
    pass


@app.command()
def fetch(
    model: Annotated[
        str | None, typer.Argument(help="A sentence-transformers model by name. Default: all-mpnet-base-v2.")
    ] = None,
) -> None:
    """Fetch the weights of an encoder if they are not on this machine, and compare their checksum."""
    from ragcun_cache.encoder import fetch_weights
    from ragcun_cache.encoder.config import DEFAULT_MODEL
    from ragcun_cache.home import Home

    weights = fetch_weights(model or DEFAULT_MODEL, Home.default())
    typer.echo(f"{weights.model_id}: {weights.folder}")
