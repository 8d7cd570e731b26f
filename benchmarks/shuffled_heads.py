"""The planted null of ``train-head``: default heads that are trained on shuffled pairs, evaluated beside raw."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.evaluation.candidates import describe_head, head_encoder
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.files import sha256_json
from ragcun_cache.home import Home
from ragcun_cache.training.config import Select, make_config
from ragcun_cache.training.pairs import TrainingData, load_training_data
from ragcun_cache.training.run import train_head
from ragcun_cache.training.seeds import parse_seeds

ARCH = "lejepa, shuffled pairs"
"""What results of these heads are called, so that no table takes them for heads that were trained on real pairs."""


def shuffled(data: TrainingData, seed: int) -> TrainingData:
    """Return the data with every query given another's passage, and every dev query another's judgements."""
    rng = np.random.default_rng(seed)
    train_p2 = data.train_p2.copy()
    train_p2[:, 1] = rng.permutation(train_p2[:, 1])
    queries = list(data.dev_qrels)
    judgements = [data.dev_qrels[queries[i]] for i in rng.permutation(len(queries))]
    return replace(
        data,
        train_p2=train_p2,
        dev_qrels=dict(zip(queries, judgements, strict=True)),
        drawn_from=None,
        sha256=sha256_json([data.sha256, "shuffled", seed]),
    )


def run(
    home: Home, train: str, pairs: int | None, evaluate: list[str], seeds: list[int], encoder: str | None = None
) -> list[Result]:
    """Train a default head for each seed and way of choosing its epoch, and return its results on ``evaluate``.

    The heads are not kept: they are good for nothing. ``encoder`` is the fingerprint of the vectors that are
    meant, None where only one encoder is cached.

    Raises:
        CacheError: the vectors of the encoder are not cached, or there are several to choose from.
    """
    store, results = ResultStore(home.results), []
    for seed in seeds:
        for select in (Select.BEST_DEV, Select.LAST):
            settings = {"dataset": train, "encoder": encoder, "pairs": pairs, "seed": seed, "select": select}
            config = make_config(settings)
            data = load_training_data(config, home)
            with tempfile.TemporaryDirectory() as scratch:
                record = train_head(config, Home(Path(scratch)), data=shuffled(data, seed)).record
                system = describe_head(record, home).model_copy(update={"arch": ARCH})
                for name in evaluate:
                    collection = find_collection(name, home, download=False)
                    subject = Subject.of(
                        collection, open_pair(home.caches, collection, data.caches.vectors), EvalConfig()
                    )
                    subject.evaluate(raw_head(subject.pair.passage.dim), lambda: encode_raw, store)
                    results.append(subject.evaluate(system, head_encoder(record, "cpu"), store))
    return results


def main(
    dataset: Annotated[str, typer.Option(help="Collection to train on.")] = "msmarco",
    pairs: Annotated[int | None, typer.Option(help="Draw that many of its pairs.")] = 10_000,
    evaluate: Annotated[str, typer.Option(help="Collections to evaluate on, divided by commas.")] = "scifact,nfcorpus",
    seeds: Annotated[str, typer.Option(help="Such as 0-9.")] = "0-4",
    encoder: Annotated[str | None, typer.Option(help="Encoder fingerprint, where several are cached.")] = None,
) -> None:
    """Train default heads on shuffled pairs and evaluate them; ``benchmarks.beating_raw`` shows the results."""
    for result in run(Home.default(), dataset, pairs, evaluate.split(","), parse_seeds(seeds), encoder):
        typer.echo(f"{result.setting.collection}, seed {result.system.seed}: {result.metrics['ndcg@10']:.4f}")


if __name__ == "__main__":
    typer.run(main)
