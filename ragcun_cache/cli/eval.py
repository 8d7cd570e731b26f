"""``ragcun-cache eval``: heads on cached collections, the raw encoder always among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragcun_cache.home import Home

if TYPE_CHECKING:
    from ragcun_cache.evaluation.results import Result
    from ragcun_cache.evaluation.subject import Subject


def evaluate(
    dataset: Annotated[
        list[str], typer.Option(help="Collection to evaluate on: a name or folder. Repeat it, or divide by commas.")
    ],
    head: Annotated[
        list[str] | None,
        typer.Option(help="Run name, folder, or pattern such as '*lejepa*'. Repeatable. Default: all that fit."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate on. Default: the official one.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Fingerprint of the encoder, where there are several.")] = None,
    index: Annotated[
        str, typer.Option(help="flat (exact), faiss, hnsw, ivfpq or sq8, with parameters as in hnsw:m=16,ef_search=64.")
    ] = "flat",
    device: Annotated[str, typer.Option(help="Where heads are applied: auto, cpu, cuda, cuda:N, mps.")] = "auto",
    save_run: Annotated[
        Path | None, typer.Option(help="Also write a TREC run file of every system into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
) -> None:
    """Evaluate heads on the cached vectors, next to the raw encoder, and print the leaderboard.

    The encoder is never loaded. A result that is in the store already is not computed again.
    """
    from ragcun_cache.cli.leaderboard import show
    from ragcun_cache.evaluation.candidates import choose_heads, describe_head, head_cost, head_encoder
    from ragcun_cache.evaluation.store import ResultStore
    from ragcun_cache.evaluation.subject import encode_raw
    from ragcun_cache.evaluation.system import raw_head

    home = Home.default()
    if device not in ("auto", "cpu"):
        from ragcun_cache.device import resolve_device

        resolve_device(device)
    subjects = _subjects(dataset, split, encoder, index, home)
    heads, left_out = choose_heads(head, subjects, home)
    for reason in left_out:
        typer.echo(f"note: {reason}: it is left out", err=True)
    encoders = {record.folder: head_encoder(record, device) for records in heads for record in records}
    store = ResultStore(home.results)
    results: list[Result] = []
    for subject, records in zip(subjects, heads, strict=True):
        raw = raw_head(subject.pair.passage.dim)
        results.append(subject.evaluate(raw, lambda: encode_raw, store, run_folder=save_run))
        _note_counts(results[-1])
        _note_index(results[-1])
        for record in records:
            system, encode = describe_head(record, home), encoders[record.folder]
            results.append(subject.evaluate(system, encode, store, cost=head_cost(record), run_folder=save_run))
            note_seen(results[-1])
            _note_index(results[-1])
    show(results, store, home, as_json=as_json, markdown=markdown)


def _subjects(datasets: list[str], split: str | None, encoder: str | None, index: str, home: Home) -> list[Subject]:
    from ragcun_cache.cache import open_pair
    from ragcun_cache.collections.locate import find_collection
    from ragcun_cache.collections.registry import each_name
    from ragcun_cache.evaluation.config import EvalConfig
    from ragcun_cache.evaluation.subject import Subject

    config = EvalConfig(split=split, index=index)
    subjects = []
    for name in each_name(datasets):
        collection = find_collection(name, home, download=False)
        subject = Subject.of(collection, open_pair(home.caches, collection, encoder), config)
        # Read now, so that a split that does not exist is known before anything is computed.
        _ = subject.qrels
        subjects.append(subject)
    return subjects


def _note_counts(result: Result) -> None:
    counts, place = result.counts, f"{result.setting.collection}/{result.setting.split}"
    remarks = {
        "judged queries have no vector and score 0": counts.missing,
        "judged queries have no relevant passage and score 0": counts.without_relevant,
        "relevant passages are not in the corpus, and count in the ideal ranking": counts.absent_passages,
        "results with their query's own id were dropped": counts.identical_dropped,
    }
    for remark, count in remarks.items():
        if count:
            typer.echo(f"note: {place}: {count} {remark}", err=True)
    if result.ndcg_identical_kept is not None:
        typer.echo(f"note: {place}: with those, NDCG@10 would be {result.ndcg_identical_kept:.4f}", err=True)


def _note_index(result: Result) -> None:
    exact, setting = result.against_exact, result.setting
    if exact is not None:
        typer.echo(
            f"note: {setting.collection}/{setting.split}: {result.system.name} by {setting.config.index}: "
            f"recall@10 {exact.recall:.4f} of exact search, NDCG@10 {exact.ndcg_difference:+.4f}",
            err=True,
        )


def note_seen(result: Result) -> None:
    """Say on stderr how many judged queries a system may remember, because it was trained on them."""
    seen = result.seen_gold
    if seen is not None and seen.repeated:
        typer.echo(
            f"note: {result.setting.collection}/{result.setting.split}: {seen.repeated} judged queries have the id or "
            f"the text of one that {result.system.name} was trained on",
            err=True,
        )
