"""``ragcun-cache tune``: the best retrieval that the cached vectors of a collection give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcun_cache.cli.eval import note_seen

if TYPE_CHECKING:
    from ragcun_cache.evaluation.results import Result
    from ragcun_cache.tuning.tune import Tuned

_SHOWN = 12


def tune(
    dataset: Annotated[str | None, typer.Option(help="collection to tune for: a name or folder")] = None,
    labels: Annotated[
        str | None, typer.Option(help="train: its judgements but the test split's; or none [train]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="time to take at most [10]")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with settings, such as pipelines/tune/in_domain_scifact.yaml; flags go over it"),
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(help="trained head to try too; a name or pattern; repeatable")
    ] = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(
            help="with --labels none: collection that may choose; repeatable "
            "[others; no titles, no samples of one cached whole, none that the encoder was trained on]"
        ),
    ] = None,
    train_queries: Annotated[int | None, typer.Option(help="draw that many of the judged train queries [all]")] = None,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="planted null: shuffle the judgements")] = False,
    seed: Annotated[int | None, typer.Option(help="seed of all that is random [0]")] = None,
    seeds: Annotated[str | None, typer.Option(help="several seeds, such as 0-4")] = None,
    encoder: Annotated[str | None, typer.Option(help="encoder fingerprint, where several are cached")] = None,
    skip_stored: Annotated[
        bool, typer.Option("--skip-stored", help="pass over what the same code tuned before, by the same data")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Try what these vectors can give, choose on dev, test the choice and the raw encoder once.

    With judgements, dev is the collection's dev split, or its train queries in five parts by turns; without, judged
    queries of other collections choose. The encoder is never loaded. Nothing is chosen that is not better
    than raw by more than the luck of many tries.
    """
    from ragcun_cache.evaluation.store import ResultStore
    from ragcun_cache.home import Home
    from ragcun_cache.training.seeds import parse_seeds
    from ragcun_cache.tuning.config import load_tune_config
    from ragcun_cache.tuning.tune import is_stored, was_tuned
    from ragcun_cache.tuning.tune import tune as run

    flags: dict[str, Any] = {
        "dataset": dataset,
        "labels": labels,
        "minutes": minutes,
        "heads": head,
        "transfer": transfer,
        "train_queries": train_queries,
        "shuffled": shuffled or None,
        "seed": seed,
        "encoder": encoder,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    configs = [load_tune_config(config, {**overrides, "seed": one}) for one in (parse_seeds(seeds) if seeds else [])]
    configs = configs or [load_tune_config(config, overrides)]
    home = Home.default()
    store = ResultStore(home.results)
    tuned = []
    for one in configs:
        if skip_stored and was_tuned(one, home):
            before = f"note: {one.dataset}, labels {one.labels}, seed {one.seed} was tuned before"
            if is_stored(one, home):
                typer.echo(before, err=True)
                continue
            typer.echo(f"{before}, by other code or data: tuned again", err=True)
        tuned.append(run(one, home, store))
        if not json_:
            _render(tuned[-1], store)
    if json_:
        _render_json(tuned)


def _render(tuned: Tuned, store: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config = tuned.config
    if tuned.trials:
        best = sorted(tuned.trials[1:], key=lambda trial: -trial[1])[:_SHOWN]
        chosen = [trial for trial in tuned.trials if trial[0] == tuned.spec and trial not in best[:1]]
        table = Table(
            title=Text(f"{config.dataset}, labels {config.labels}, seed {config.seed}: {len(tuned.trials):,} systems"),
            caption=Text(f"dev: {tuned.dev_queries:,} queries of {', '.join(tuned.chosen_by)}"),
        )
        table.add_column("system", overflow="fold")
        table.add_column("dev NDCG@10", justify="right")
        shown = dict.fromkeys([tuned.trials[0], *best, *chosen])
        for spec, ndcg in shown:
            table.add_row(Text(str(spec)), f"{ndcg:.4f}", style="bold" if spec == tuned.spec else "")
        Console().print(table)
    for rung in tuned.left_out:
        typer.echo(f"note: no time for {rung}", err=True)
    place = f"{tuned.raw.setting.collection}/{tuned.raw.setting.split}"
    typer.echo(f"{place}, tested once:")
    typer.echo(f"  raw encoder  {_ndcg(tuned.raw):.4f}")
    if tuned.winner is None:
        typer.echo("Nothing was better than the raw encoder on dev by more than chance: keep the raw encoder.")
    else:
        _render_winner(tuned, tuned.winner, store)
    typer.echo(f"{tuned.seconds:.0f} s in all")


def _render_winner(tuned: Tuned, winner: Result, store: Any) -> None:
    from ragcun_cache.evaluation.significance import compare, p_text

    metric = next(iter(winner.metrics))
    found = compare(store.per_query(winner).values[metric], store.per_query(tuned.raw).values[metric])
    typer.echo(f"  chosen       {_ndcg(winner):.4f}  {tuned.spec}")
    queries = f"queries won/tied/lost {found.wins}/{found.ties}/{found.losses}"
    typer.echo(f"  difference   {found.difference:+.4f}, {p_text(found.p_value)}; {queries}")
    if winner.seen_gold is not None:
        raw_seen, raw_unseen = _raw_by_gold(tuned.raw, winner, store)
        seen = winner.seen_gold
        for name, count, metrics, raw in (
            ("seen gold", seen.seen, seen.seen_metrics, raw_seen),
            ("unseen gold", seen.unseen, seen.unseen_metrics, raw_unseen),
        ):
            if count:
                typer.echo(f"  {name:<11}  {metrics[metric]:.4f}, raw {raw:.4f}, of {count} queries")
        note_seen(winner)
    if winner.cost is not None:
        cost = winner.cost
        index = "the index of passages is built again" if cost.index_rebuilt else "the index of passages stays"
        typer.echo(
            f"  cost         {cost.seconds:.0f} s to choose and fit, {(cost.bytes or 0) / 1e6:.1f} MB to keep; {index}"
        )
    if tuned.head is not None:
        typer.echo(f"  its adapter  {tuned.head.name}")


def _ndcg(result: Result) -> float:
    return next(iter(result.metrics.values()))


def _raw_by_gold(raw: Result, winner: Result, store: Any) -> tuple[float, float]:
    """Return the raw encoder's figure on the queries that the winner has seen the gold of, and on the others."""
    import numpy as np

    metric = next(iter(raw.metrics))
    seen_q = store.gold_seen(winner)
    value_q = store.per_query(raw).values[metric]
    parts = [value_q[chosen_q] for chosen_q in (seen_q, ~seen_q)]
    seen, unseen = (float(np.mean(part)) if len(part) else 0.0 for part in parts)
    return seen, unseen


def _render_json(tuned: list[Tuned]) -> None:
    import json

    content = []
    for one in tuned:
        content.append(
            {
                "config": one.config.model_dump(mode="json"),
                "chosen": str(one.spec),
                "spec": one.spec.model_dump(mode="json"),
                "dev_ndcg@10": one.dev_ndcg,
                "dev_queries": one.dev_queries,
                "chosen_by": one.chosen_by,
                "left_out": one.left_out,
                "raw": one.raw.content(),
                "winner": None if one.winner is None else one.winner.content(),
                "head": None if one.head is None else one.head.name,
                "seconds": one.seconds,
                "trials": [{"system": str(spec), "dev_ndcg@10": ndcg} for spec, ndcg in one.trials],
            }
        )
    typer.echo(json.dumps(content, indent=2))
