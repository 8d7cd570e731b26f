"""Where the figures of a report come from: machines, versions, commits, fingerprints, and commands that repeat them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from ragcun_cache.evaluation.leaderboard import Leaderboard
from ragcun_cache.evaluation.origin import encoders, listed, training
from ragcun_cache.evaluation.results import Result
from ragcun_cache.heads.config import ADAPTER
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.report.boards import row_results, told_apart
from ragcun_cache.report.sources import Sources
from ragcun_cache.report.vectors import Datasets, comment, vector_commands
from ragcun_cache.retrieval.index import FLAT

_COLUMNS = ["system", "collection", "seed", "date", "commit", "head sha256", "queries", "passages", "result"]
_SHORT = 10


def provenance_content(
    boards: Sequence[Leaderboard], results: Sequence[Result], sources: Sources, written_by: str
) -> dict[str, Any]:
    """Return facts that hold for many results, one line for each, and the commands that would make them again."""
    settings = {result.setting.sha256: result.setting for result in results}.values()
    seeds_of = {(row.label, _seeds(row_results(row, sources))): board for board in boards for row in board.rows[1:]}
    labels = told_apart([(label, board) for (label, _), board in seeds_of.items()])
    facts = [
        ("machine", [listed(result.machine) for result in results]),
        ("versions", [listed(result.versions) for result in results]),
        ("commit", [result.commit or "not from a checkout" for result in results]),
        ("evaluated", [f"{min(result.date for result in results)} to {max(result.date for result in results)}"]),
        ("encoder", encoders(results, sources.home)),
        ("trained or chosen by", training(results, sources.home)),
        (
            "caches",
            [
                f"{one.collection}: queries {one.query_fingerprint} of file {one.query_content_sha256[:_SHORT]}, "
                f"passages {one.passage_fingerprint} of file {one.passage_content_sha256[:_SHORT]}"
                for one in settings
            ],
        ),
        ("judgements", [f"{one.collection}/{one.split}: sha256 {one.qrels_sha256[:_SHORT]}" for one in settings]),
        ("seeds", [f"{label}: {seeds}" for label, (_, seeds) in zip(labels, seeds_of, strict=True)]),
    ]
    return {
        "facts": [(name, list(dict.fromkeys(values))) for name, values in facts if values],
        "commands": commands(boards, results, sources, written_by),
        "columns": _COLUMNS,
        "results": [_line(result) for result in results],
    }


def _line(result: Result) -> list[str]:
    return [
        result.system.name,
        f"{result.setting.collection}/{result.setting.split}",
        "–" if result.system.seed is None else str(result.system.seed),
        result.date,
        (result.commit or "–")[:_SHORT],
        result.system.sha256[:_SHORT],
        f"{result.counts.judged:,}",
        f"{result.passages:,}",
        result.key,
    ]


def _seeds(results: Iterable[Result]) -> str:
    seeds = sorted({result.system.seed for result in results if result.system.seed is not None})
    return ranges(seeds) if seeds else "none"


def ranges(numbers: Sequence[int]) -> str:
    """Write sorted numbers as ``0-4,7``, the way ``--seeds`` reads them."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def commands(boards: Sequence[Leaderboard], results: Sequence[Result], sources: Sources, written_by: str) -> list[str]:
    """Return shell commands that encode, train, evaluate and report all of it again; comments where there is none."""
    used: dict[str, HeadRecord] = {}
    trains: dict[str, None] = {}
    for board in boards:
        for row in board.rows[1:]:
            found = {record.sha256: record for one in row_results(row, sources) if (record := sources.record(one))}
            used |= found
            if not found:
                trains[comment(f"{row.label}: no head of it is on this machine")] = None
            by_settings: dict[str, list[HeadRecord]] = {}
            for record in found.values():
                by_settings.setdefault(_settings(record), []).append(record)
            for settings, records in by_settings.items():
                if not settings:
                    tuned = records[0].config.arch == ADAPTER
                    said = "ragcun-cache tune learnt it" if tuned else "its record does not say how it was trained"
                    trains[comment(f"{row.label}: {said}")] = None
                    continue
                seeds = ranges(sorted({int(record.provenance["seed"]) for record in records}))
                trains[f"ragcun-cache train-head --seeds {seeds} --config /dev/stdin <<< {shlex.quote(settings)}"] = (
                    None
                )
    datasets = Datasets(used.values(), sources.home)
    encodes = vector_commands(results, used.values(), datasets, sources.home)
    return [*encodes, *trains, *_evals(results, datasets), written_by]


def _evals(results: Sequence[Result], datasets: Datasets) -> list[str]:
    """Return a command for each way of evaluating: encoder, its prompts, split and index."""
    prompts: dict[str, set[str]] = {}
    groups: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for result in results:
        setting = result.setting
        both = f"{setting.query_fingerprint}+{setting.passage_fingerprint}"
        prompts.setdefault(setting.encoder, set()).add(both)
        key = (setting.encoder, both, setting.split, setting.config.index)
        groups.setdefault(key, {})[datasets.path(setting.collection)] = None
    return [
        # The encoder's fingerprint is that of both caches, unless it has vectors with several prompts.
        shlex.join(["ragcun-cache", "eval", "--dataset", ",".join(names)])
        + f" --encoder {encoder if len(prompts[encoder]) == 1 else both} --split {shlex.quote(split)}"
        + ("" if index == FLAT else f" --index {shlex.quote(index)}")
        for (encoder, both, split, index), names in groups.items()
    ]


def _settings(record: HeadRecord) -> str:
    """Return the training settings of a head without its seed, as JSON, which YAML readers read too."""
    train = record.provenance.get("train")
    if not train or "dataset" not in train:
        return ""
    return json.dumps(
        {key: value for key, value in train.items() if value is not None and key not in ("seed", "device")}
        | ({"ema": None} if train.get("ema") is None else {})
    )
