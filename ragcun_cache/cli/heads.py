"""``ragcun-cache heads``: what heads there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ragcun_cache.errors import HeadError, unknown_choice

app = typer.Typer(no_args_is_help=True, help="Trained heads: list them, look at one.")


@app.command("ls")
def list_(json_: Annotated[bool, typer.Option("--json", help="print as JSON")] = False) -> None:
    """List the heads, with the dev NDCG@10 of the epoch that each was kept from."""
    import json

    from ragcun_cache.heads.store import list_heads
    from ragcun_cache.home import Home

    records = list_heads(Home.default().heads)
    lines: list[dict[str, Any]] = [
        {
            "name": record.name,
            "arch": record.config.arch,
            "init": record.config.init,
            "out_dim": record.config.out_dim,
            "similarity": record.config.similarity,
            "seed": record.provenance["seed"],
            "epoch": f"{record.provenance['epoch']}/{record.provenance['epochs']}",
            "complete": record.complete,
            "dev_ndcg@10": record.provenance["metrics"]["dev_ndcg@10"],
        }
        for record in records
    ]
    if json_:
        typer.echo(json.dumps(lines, indent=2))
        return
    if not lines:
        typer.echo("no heads yet: ragcun-cache train-head --help")
        return
    for line in lines:
        dev = "" if line["dev_ndcg@10"] is None else f"  dev NDCG@10 {line['dev_ndcg@10']:.4f}"
        state = "" if line["complete"] else "  (incomplete: the same train-head command resumes)"
        typer.echo(f"{line['name']}  {line['similarity']}  epoch {line['epoch']}{dev}{state}")


@app.command()
def info(name: Annotated[str, typer.Argument(help="name of a head")]) -> None:
    """Print all that is known of a head (JSON): config, hash, caches, versions, metrics by epoch."""
    import json

    import polars

    from ragcun_cache.heads.store import RECORD_NAME, read_record
    from ragcun_cache.home import Home
    from ragcun_cache.training.run import METRICS_NAME

    heads = Home.default().heads
    folder = heads / name
    if not (folder / RECORD_NAME).exists():
        names = [path.parent.name for path in heads.glob(f"*/{RECORD_NAME}")]
        raise unknown_choice("head", name, names, where=heads, error=HeadError)
    record = read_record(folder)
    content = {
        "name": record.name,
        "folder": str(folder),
        "sha256": record.sha256,
        "config": record.config.model_dump(mode="json"),
        **record.provenance,
        "epochs_table": polars.read_parquet(folder / METRICS_NAME).to_dicts(),
    }
    typer.echo(json.dumps(content, indent=2))
