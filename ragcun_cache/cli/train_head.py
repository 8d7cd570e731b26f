"""``ragcun-cache train-head``: train a head from cached vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ragcun_cache.alarms import Alarm
    from ragcun_cache.training.run import TrainedHead

_PIPELINE_HELP = "YAML file with settings, such as pipelines/lejepa_identity.yaml; flags go over it"


def train_head(
    arch: Annotated[
        str | None,
        typer.Option(
            help="identity, untrained, isotropy, lejepa, respred, asymmetric, or your own of RAGCUN_HEADS [lejepa]"
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="collection whose judged pairs to train on")] = None,
    config: Annotated[Path | None, typer.Option(help=_PIPELINE_HELP)] = None,
    preset: Annotated[str | None, typer.Option(help="published: as in the recipes that this follows")] = None,
    encoder: Annotated[str | None, typer.Option(help="encoder fingerprint, where several are cached")] = None,
    pairs: Annotated[int | None, typer.Option(help="train on a sample of that many train pairs [all]")] = None,
    pairs_seed: Annotated[int | None, typer.Option(help="seed of that sample [0]")] = None,
    dev: Annotated[str | None, typer.Option(help="dev split, or share of the train queries to set apart")] = None,
    out_dim: Annotated[int | None, typer.Option(help="output dimension [the encoder's]")] = None,
    init: Annotated[str | None, typer.Option(help="random or identity [by arch]")] = None,
    isotropy: Annotated[str | None, typer.Option(help="published, scale_free or sigreg [by arch]")] = None,
    similarity: Annotated[
        str | None, typer.Option(help="cosine, dot or l2 [cosine from identity or if asymmetric, else l2]")
    ] = None,
    ema: Annotated[str | None, typer.Option(help="decay of the EMA target of lejepa, or none [0.999]")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the pairs [3]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="pairs a step [by arch]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's rate [by arch]")] = None,
    select: Annotated[str | None, typer.Option(help="keep the last epoch, best_dev or dev_loss [last]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value: any setting; repeatable")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seed of weights, order and dropout; repeatable [0]")] = None,
    seeds: Annotated[str | None, typer.Option(help="several seeds, such as 0-9")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps [auto]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="train again, from the start")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train a head from cached vectors; the encoder is never loaded. A finished run is found, a cut one resumed."""
    from ragcun_cache.home import Home
    from ragcun_cache.marked_yaml import read_settings, read_value
    from ragcun_cache.training.config import load_config
    from ragcun_cache.training.pairs import load_training_data
    from ragcun_cache.training.run import train_head as train
    from ragcun_cache.training.seeds import parse_seeds

    flags: dict[str, Any] = {
        "arch": arch,
        "dataset": dataset,
        "encoder": encoder,
        "pairs": pairs,
        "pairs_seed": pairs_seed,
        "dev": None if dev is None else read_value(dev),
        "out_dim": out_dim,
        "init": init,
        "isotropy": isotropy,
        "similarity": similarity,
        "ema": ema,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "select": select,
        "device": device,
    }
    overrides = {name: value for name, value in flags.items() if value is not None} | read_settings(set_)
    if ema in ("none", "null", "off"):
        overrides["ema"] = None
    wanted = [*(seed or []), *(parse_seeds(seeds) if seeds else [])]
    configs = [load_config(config, {**overrides, "seed": one}, preset) for one in dict.fromkeys(wanted)]
    configs = configs or [load_config(config, overrides, preset)]
    home = Home.default()
    data = load_training_data(configs[0], home)
    trained = []
    for one in configs:
        trained.append(train(one, home, data=data, fresh=fresh))
        if not json_:
            _render(trained[-1])
    if json_:
        _render_json(trained)


def _render(trained: TrainedHead) -> None:
    from rich.console import Console
    from rich.table import Table

    from ragcun_cache.training.diagnostics import DEV_METRIC

    record = trained.record
    if trained.reused:
        typer.echo(f"{record.name} is trained already (--fresh trains it again)")
        _render_alarms(trained)
        return
    seconds = sum(row["train_seconds"] + row["measure_seconds"] for row in trained.rows)
    kept = record.provenance["metrics"]
    columns = {
        "loss": "loss",
        DEV_METRIC: "dev NDCG@10",
        "output_std": "std",
        "output_std_ratio": "to start",
        "mean_cosine": "mean cosine",
        "relative_residual": "residual",
    }
    caption = f"dev: {kept['dev_queries']:,} queries, {kept['dev_corpus_rows']:,} passages"
    table = Table(title=f"{record.provenance['train_pairs']:,} pairs, {seconds:.1f} s", caption=caption)
    for title in ("epoch", *columns.values()):
        table.add_column(title, justify="right")
    for row in trained.rows:
        values = [row[name] for name in columns]
        table.add_row(str(row["epoch"]), *("" if value is None else f"{value:.4g}" for value in values))
    Console().print(table)
    typer.echo(f"kept: epoch {record.provenance['epoch']}, in {record.folder}")
    _render_alarms(trained)


def _alarms(trained: TrainedHead) -> list[Alarm]:
    from ragcun_cache.alarms import alarms

    return alarms(trained.rows, trained.record.provenance["epoch"])


def _render_alarms(trained: TrainedHead) -> None:
    for alarm in _alarms(trained):
        typer.echo(f"alarm, epoch {alarm.epoch}: {alarm.name}: {alarm.text}")


def _render_json(trained: list[TrainedHead]) -> None:
    import json
    from dataclasses import asdict

    typer.echo(
        json.dumps(
            [
                {
                    "name": one.record.name,
                    "folder": str(one.record.folder),
                    "sha256": one.record.sha256,
                    "reused": one.reused,
                    "epoch": one.record.provenance["epoch"],
                    "alarms": [asdict(alarm) for alarm in _alarms(one)],
                    "metrics": one.rows,
                }
                for one in trained
            ],
            indent=2,
        )
    )
