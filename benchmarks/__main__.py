"""The command: run benchmarks and write their sections of the page."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.circumstances import Circumstances
from benchmarks.page import write_sections
from benchmarks.setting import Setting
from ragcun_cache.errors import RagcunCacheError, unknown_choice
from ragcun_cache.home import Home

NAMES = (
    "cache_read",
    "cache_scale",
    "encode",
    "encode_engines",
    "encode_memory",
    "encode_quality",
    "eval",
    "eval_scale",
    "full_softmax",
    "mined_negatives",
    "train",
    "train_scale",
    "train_step",
)
# It reads caches of several precisions, which only those have who asked for them: `make bench-precision` does.
_BY_NAME_ONLY = ("encode_quality",)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(NAMES)}. Default: all but {', '.join(_BY_NAME_ONLY)}.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of the benchmarks that have many. Default: each its own.")
    ] = None,
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Measure speed beside named peers; every section is written when its benchmark is done."""
    try:
        chosen = names or [name for name in NAMES if name not in _BY_NAME_ONLY]
        for name in chosen:
            if name not in NAMES:
                raise unknown_choice("benchmark", name, NAMES)
        for name in chosen:
            body = section(name, Home.default(), rows)
            write_sections(page, {name: body})
            typer.echo(body + "\n")
    except RagcunCacheError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def section(name: str, home: Home, rows: int | None) -> str:
    """Run the benchmark ``name`` and return its section; its files are removed."""
    benchmark = import_module(f"benchmarks.{name}")
    circumstances = Circumstances(benchmark.PACKAGES)
    home.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.root, prefix=".benchmark-") as scratch:
        body = benchmark.run(Setting(home, Path(scratch), rows))
    return f"## {benchmark.TITLE} (`{name}`)\n\n{body}\n\n{circumstances.line()}"


if __name__ == "__main__":
    typer.run(main)
