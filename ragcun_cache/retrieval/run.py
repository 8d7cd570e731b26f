"""The run: what a search returned, in the one order that trec_eval would read it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from ragcun_cache.errors import EvaluationError
from ragcun_cache.files import write_text

Run = dict[str, dict[str, float]]
"""Query id -> passage id -> score. Inner dicts are in rank order when they come from this package."""


def rank_order(scored: Iterable[tuple[float, str]], k: int) -> dict[str, float]:
    """Return the ``k`` best of ``(score, passage id)``: score descending, equal scores by id descending.

    This is trec_eval's order for float32 scores. Python compares strings by code point, which is the byte order
    of their UTF-8 that trec_eval compares.
    """
    best = sorted(scored, reverse=True)[:k]
    return {passage_id: score for score, passage_id in best}


def drop_identical(run: Mapping[str, Mapping[str, float]], k: int) -> tuple[Run, int]:
    """Return ``run`` without passages that carry their query's own id, cut to ``k``, and how many were dropped.

    ``run`` must hold ``k + 1`` passages a query, in rank order, so that ``k`` are left. It is not changed.
    """
    kept: Run = {}
    n_dropped = 0
    for query_id, scores in run.items():
        others = scores
        if query_id in scores:
            n_dropped += 1
            others = {passage_id: score for passage_id, score in scores.items() if passage_id != query_id}
        kept[query_id] = dict(islice(others.items(), k))
    return kept, n_dropped


def write_trec(path: Path, run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write ``run``, whose passages are in rank order, as a TREC run file: ``qid Q0 docid rank score tag``.

    Scores are written so that they read back as the same numbers. The file is written whole or not at all.

    Raises:
        EvaluationError: an id is empty or has white space in it, which this format cannot hold.

    """
    lines = []
    for query_id, scores in run.items():
        for rank, (passage_id, score) in enumerate(scores.items(), start=1):
            if unfit := next((one for one in (query_id, passage_id, tag) if one.split() != [one]), None):
                raise EvaluationError("a TREC run file cannot hold this id", where=path, found=repr(unfit))
            lines.append(f"{query_id} Q0 {passage_id} {rank} {score!r} {tag}\n")
    write_text(path, "".join(lines))
