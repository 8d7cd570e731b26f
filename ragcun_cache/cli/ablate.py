"""``ragcun-cache ablate``: carry out a recipe, and show how its heads compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ragcun_cache.ablation.search import Found
    from ragcun_cache.ablation.sweep import Sweep, SweepRun


def ablate(
    recipe: Annotated[
        Path,
        typer.Argument(help="YAML file, such as pipelines/new_idea.yaml: what to train, and on what to evaluate it."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what it takes.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default: one a core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads a run. The last bits of weights depend on them.")] = 1,
    baseline: Annotated[
        str | None, typer.Option(help="Row, or head (or a pattern of one), that every row is compared with too.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds in place of the recipe's, such as 0-9.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value: a setting over the recipe's own `train`; repeatable.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder fingerprint, where several are cached; over the recipe's own.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Also write training curves below this folder.")] = None,
) -> None:
    """Train and evaluate every run of a recipe, then compare them with the raw encoder and with each other.

    What is done already is found, so the same command goes on where it was interrupted. A run that fails does not
    stop the others; the exit status then is 1.
    """
    from ragcun_cache.ablation.recipe import load_recipe
    from ragcun_cache.ablation.sweep import Sweep, count, default_jobs, failures, to_do
    from ragcun_cache.ablation.watch import watching
    from ragcun_cache.cli.arguments import settings
    from ragcun_cache.cli.leaderboard import show
    from ragcun_cache.home import Home
    from ragcun_cache.training.seeds import parse_seeds

    train = settings(set_) | ({} if encoder is None else {"encoder": encoder})
    asked = load_recipe(recipe, seeds=parse_seeds(seeds) if seeds else None, train=train)
    sweep = Sweep(asked, Home.default())
    wanted = to_do(sweep.runs, retry_failed=retry_failed)
    if dry_run:
        _show_plan(sweep, wanted, jobs or default_jobs(threads), threads, as_json=as_json)
        return
    states = count(sweep.runs)
    typer.echo(f"{len(sweep.runs)} runs: {states['done']} done before, {len(wanted)} to do", err=True)
    with watching(len(wanted) + _runs_of_search(sweep)) as watch:
        sweep.carry_out(watch, jobs=jobs, threads=threads, retry_failed=retry_failed)
    show(
        sweep.results(),
        sweep.bench.store,
        sweep.home,
        baseline=baseline,
        as_json=as_json,
        markdown=markdown,
        title=f"Results of the recipe `{sweep.recipe.name}`",
        more=_described(sweep),
    )
    if tensorboard is not None:
        from ragcun_cache.training.curves import write_curves

        write_curves(filter(None, map(sweep.head, sweep.runs)), tensorboard)
    if sweep.found is not None:
        typer.echo(_told(sweep.found), err=True)
    failed = list(failures(sweep.runs))
    for label, error in failed:
        typer.echo("\n  ".join([f"failed: {label}", *error.splitlines()]), err=True)
    if failed:
        typer.echo(f"{len(failed)} of {len(sweep.runs)} runs failed; --retry-failed tries them again", err=True)
        raise typer.Exit(1)


def _described(sweep: Sweep) -> dict[str, Any]:
    from dataclasses import asdict

    runs = [
        {"label": run.planned.label, "head": run.name, "state": run.state, "error": run.error} for run in sweep.runs
    ]
    found = {} if sweep.found is None else {"search": asdict(sweep.found)}
    return {"recipe": sweep.recipe.name, "folder": str(sweep.record.folder), "runs": runs, **found}


def _runs_of_search(sweep: Sweep) -> int:
    asked = sweep.recipe.search
    return 0 if asked is None else asked.trials * len(sweep.recipe.seeds)


def _told(found: Found) -> str:
    failed = sum(trial.dev is None for trial in found.trials)
    if found.best is None:
        return f"search: all of {failed} trials failed"
    settings = ", ".join(f"{name}={value}" for name, value in found.best.settings.items())
    return f"search: {len(found.trials)} trials, {failed} failed; best on dev ({found.best.dev:.4f}): {settings}"


def _show_plan(sweep: Sweep, wanted: list[SweepRun], jobs: int, threads: int, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from ragcun_cache.ablation.estimate import estimate
    from ragcun_cache.ablation.sweep import count

    states = count(sweep.runs)
    found = estimate(sweep, wanted, jobs=jobs, threads=threads)
    if as_json:
        typer.echo(json.dumps({**_described(sweep), "to_do": asdict(found)}, indent=2, ensure_ascii=False))
        return
    for run in sweep.runs:
        typer.echo(f"{run.state:8}{run.planned.label}")
    told = ", ".join(f"{number} {state}" for state, number in states.items())
    typer.echo(f"{len(sweep.runs)} runs: {told}; evaluated on {', '.join(sweep.recipe.evaluate)}")
    basis = f"{found.probed} of them timed by a few steps now, the others by earlier runs"
    typer.echo(
        f"to do: {found.runs} runs, about {found.seconds:,.0f} s ({found.seconds / 3600:,.2f} hours) "
        f"with {jobs} at a time ({basis}), "
        f"{found.bytes / 1e6:,.0f} MB of heads"
    )
    if sweep.recipe.search is not None:
        typer.echo(f"and a search of up to {_runs_of_search(sweep)} runs, which is not in that figure")
