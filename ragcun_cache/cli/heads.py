"""``ragcun-cache heads``: listing, showing, exporting and removing heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ragcun_cache.errors import HeadError, unknown_choice

_FORMATS = ("sentence-transformers",)

app = typer.Typer(no_args_is_help=True, help="List, show, export and remove trained heads.")


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


@app.command("rm")
def remove(
    names: Annotated[list[str], typer.Argument(help="names of heads, or patterns such as '*lejepa*'")],
    delete: Annotated[bool, typer.Option("--delete", help="really remove; else only say what would go")] = False,
) -> None:
    """Remove heads, and their results from the leaderboard; of a head whose record is damaged, all of its name."""
    import shutil
    from fnmatch import fnmatchcase

    from filelock import FileLock, Timeout

    from ragcun_cache.errors import EvaluationError
    from ragcun_cache.evaluation.candidates import named_heads
    from ragcun_cache.evaluation.store import ResultStore
    from ragcun_cache.heads.store import unreadable_heads
    from ragcun_cache.home import Home

    home = Home.default()
    store = ResultStore(home.results)
    results = store.all()
    unreadable = unreadable_heads(home.heads)
    found: dict[Path, tuple[Path, str | None]] = {}
    for name in names:
        damaged = [one for one in unreadable if name in (one.name, str(one)) or fnmatchcase(one.name, name)]
        found |= {folder.resolve(): (folder, None) for folder in damaged}
        try:
            records = named_heads([name], home.heads)
        except (EvaluationError, HeadError):
            if not damaged:
                raise
            records = []
        found |= {record.folder.resolve(): (record.folder, record.sha256) for record in records}
    for folder, sha256 in found.values():
        if folder.parent.resolve() != home.heads.resolve():
            raise HeadError("only heads of one's own home are removed", where=folder, expected=home.heads)
        own = [one for one in results if one.system.name == folder.name and sha256 in (None, one.system.sha256)]
        if delete:
            try:
                with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
                    for result in own:
                        store.remove(result)
                    shutil.rmtree(folder)
            except Timeout:
                raise HeadError("the head is being trained", where=folder, fix="wait, or stop it") from None
        typer.echo(f"{'removed' if delete else 'would go'}: {folder.name} and {len(own)} of its results")
    if not delete:
        typer.echo("nothing was removed; --delete removes it")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="name of a head, or its folder")],
    out: Annotated[Path, typer.Option(help="folder to write; must not be there yet")],
    to: Annotated[str, typer.Option(help="sentence-transformers")] = _FORMATS[0],
    model: Annotated[str | None, typer.Option(help="the encoder that made the vectors [the one of that name]")] = None,
) -> None:
    """Write a head with its encoder as a model for SentenceTransformer(folder), which needs nothing of ragcun-cache."""
    from ragcun_cache.evaluation.candidates import named_heads
    from ragcun_cache.export import base_model, scores
    from ragcun_cache.heads.card import model_card
    from ragcun_cache.heads.export import export_sentence_transformers, maps_roles_apart
    from ragcun_cache.heads.store import load_head
    from ragcun_cache.home import Home

    if to not in _FORMATS:
        raise unknown_choice("format", to, _FORMATS)
    home = Home.default()
    records = named_heads([name], home.heads)
    if len(records) != 1:
        found = ", ".join(record.name for record in records)
        raise HeadError(f"{name} stands for several heads", expected="the name of one", found=found)
    saved = load_head(records[0].folder)
    base_name, base = base_model(saved, model, home)
    two_ways = maps_roles_apart(saved.head)
    card = model_card(saved, base_name, out, scores(saved, home), two_ways=two_ways)
    export_sentence_transformers(saved, base, card, out)
    typer.echo(f"{out}: SentenceTransformer({str(out)!r}) loads it")
