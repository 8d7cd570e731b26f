"""The console script: registers the commands, and prints an error of ours without a traceback."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ragcun_cache import __version__
from ragcun_cache.cli import caches, collections, heads, models, results
from ragcun_cache.cli.ablate import ablate
from ragcun_cache.cli.encode import encode
from ragcun_cache.cli.eval import evaluate
from ragcun_cache.cli.leaderboard import leaderboard
from ragcun_cache.cli.report import report
from ragcun_cache.cli.search import search
from ragcun_cache.cli.train_head import train_head
from ragcun_cache.cli.tune import tune
from ragcun_cache.errors import RagcunCacheError
from ragcun_cache.files import DISK_ERRORS

_INTERRUPTED = 130

app = typer.Typer(
    name="ragcun-cache",
    help="Encode once with a frozen sentence encoder; train and evaluate retrieval heads on the cached vectors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(encode)
app.command()(train_head)
app.command("eval")(evaluate)
app.command()(ablate)
app.command()(tune)
app.command()(leaderboard)
app.command()(report)
app.command()(search)
app.add_typer(caches.app, name="caches")
app.add_typer(collections.app, name="collections")
app.add_typer(heads.app, name="heads")
app.add_typer(models.app, name="models")
app.add_typer(results.app, name="results")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ragcun-cache {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit status: 0 done, 2 an error that the user can mend, 130 interrupted."""
    try:
        app()
    except RagcunCacheError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in DISK_ERRORS:
            raise
        where = "" if error.filename is None else f"\n  where:    {error.filename}"
        print(f"error: {error.strerror}{where}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ending:
        if ending.code == _INTERRUPTED:
            print("interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        raise
