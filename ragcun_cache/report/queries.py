"""Query by query: scores of the raw encoder and of the best rows, with texts and the passages that were found."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.collections import Collection
from ragcun_cache.evaluation.metrics import score_run
from ragcun_cache.evaluation.results import Result, Setting, metric_name
from ragcun_cache.evaluation.subject import Subject
from ragcun_cache.report.sources import Sources
from ragcun_cache.retrieval.run import Run, drop_identical
from ragcun_cache.role import Role

MAX_SCORED = 8
"""Rows with a score for each query."""
MAX_SEARCHED = 4
"""Rows among them whose passages are shown."""
MAX_QUERIES = 400
"""Queries with their texts and passages, where there is room."""
TOP = 5
SNIPPET = 300
"""Characters of a passage that are shown."""
_MAX_RELEVANT = 5
_MAX_TITLE = 160
_NO_QUERY = ("", "(not among the queries)")
_NO_PASSAGE = ("", "(not in the corpus)")
# Another machine may swap passages whose scores are equal but for rounding.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Compared:
    """A row on one collection: its label, its number among the charts' series, and its results by seed."""

    label: str
    series: int
    results: tuple[Result, ...]


_Runs = dict[str, Run]
"""The runs whose passages are shown, by the key that their lists have in the page."""


def queries_content(
    setting: Setting, title: str, raw: Compared, rows: Sequence[Compared], sources: Sources, max_bytes: int
) -> dict[str, Any]:
    """Return the scores of every judged query, and texts and passages of those where raw and the rows differ most.

    Args:
        setting: the collection and split.
        title: what they are called in the tables.
        raw: the raw encoder.
        rows: what it is compared with, best first; ``MAX_SCORED`` of them are taken.
        sources: where texts, vectors and heads are found.
        max_bytes: room for texts and passages; where it does not do, fewer queries have them.

    """
    if len(rows) > MAX_SCORED:
        sources.left_out.append(f"Scores by query of {len(rows) - MAX_SCORED} rows of {title}.")
    rows = rows[:MAX_SCORED]
    metric = metric_name("ndcg@10", setting.sample_of)
    scores = sources.store.per_query(raw.results[0])
    raw_q = _mean_scores(raw, metric, sources)
    rows_rq = [_mean_scores(row, metric, sources) for row in rows]
    subject = sources.subject(setting)
    shown = _search(subject, raw, rows[:MAX_SEARCHED], sources) if subject is not None else {}
    content: dict[str, Any] = {
        "title": title,
        "metric": metric,
        "depth": setting.config.k,
        "ids": scores.query_ids,
        "raw": _rounded(raw_q),
        "systems": [
            {
                "label": row.label,
                "series": row.series,
                "key": f"s{number}",
                "note": _note(row, f"s{number}" in shown),
                "scores": _rounded(scores_q),
            }
            for number, (row, scores_q) in enumerate(zip(rows, rows_rq, strict=True))
        ],
        "texts": {},
        "detail": {},
        "passages": [],
    }
    if subject is not None and shown:
        spread_q = np.max(np.abs(np.stack(rows_rq) - raw_q), axis=0) if rows else np.zeros(len(raw_q))
        order = np.argsort(-spread_q, kind="stable")[:MAX_QUERIES].tolist()
        content |= _details(subject, {number: scores.query_ids[number] for number in order}, shown, max_bytes)
        if len(content["detail"]) < len(raw_q):
            sources.left_out.append(
                f"Texts and passages of {len(raw_q) - len(content['detail']):,} of {len(raw_q):,} queries of "
                f"{title}: those where raw and the rows differ least."
            )
    return content


def _mean_scores(row: Compared, metric: str, sources: Sources) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.mean([sources.store.per_query(one).values[metric] for one in row.results], axis=0)
    return found


def _rounded(scores_q: NDArray[np.float64]) -> list[float]:
    return [round(float(score), 5) for score in scores_q]


def _note(row: Compared, is_shown: bool) -> str:
    system = row.results[0].system
    if not is_shown:
        return "Its passages are not in this page: it is not among the best heads here, or its vectors are gone."
    note = str(system.similarity)
    if len(row.results) > 1:
        note += f"; the passages are those of seed {system.seed}, the score is the mean of {len(row.results)} seeds"
    return note


def _search(subject: Subject, raw: Compared, rows: Sequence[Compared], sources: Sources) -> _Runs:
    """Search again with the raw encoder and the first seed of each row, as the evaluation did."""
    found: _Runs = {}
    for key, row in [("raw", raw), *((f"s{number}", row) for number, row in enumerate(rows))]:
        result = row.results[0]
        encode = sources.encode(result)
        if encode is None or result.system.similarity is None:
            continue
        run = subject.search(encode, result.system.similarity)
        if subject.config.ignore_identical_ids is not False:
            run, _ = drop_identical(run, subject.config.k)
        again = score_run(run, subject.qrels).mean("ndcg@10")
        stored = result.metrics[metric_name("ndcg@10", result.setting.sample_of)]
        if abs(again - stored) > _ROUNDING:
            sources.left_out.append(
                f"Passages of {row.label} on {subject.collection.name}: searched again, its NDCG@10 is {again:.6f}, "
                f"not {stored:.6f} as stored."
            )
            continue
        found[key] = run
    return found if "raw" in found else {}


def _details(subject: Subject, chosen: Mapping[int, str], runs: _Runs, max_bytes: int) -> dict[str, Any]:
    """Return texts, lists and passages of the first of ``chosen`` (position -> query id) that there is room for."""
    every: dict[str, int] = {}
    for query_id in chosen.values():
        _one_query(query_id, subject.qrels[query_id], runs, every)
    queries = _texts(subject.collection, Role.QUERY, set(chosen.values()))
    passages = _texts(subject.collection, Role.PASSAGE, set(every))
    n_queries = len(chosen)
    while True:
        wanted: dict[str, int] = {}
        some = dict(list(chosen.items())[:n_queries])
        content = {
            "detail": {
                str(number): _one_query(query_id, subject.qrels[query_id], runs, wanted)
                for number, query_id in some.items()
            },
            "texts": {
                str(number): shorten(queries.get(query_id, _NO_QUERY)[1], SNIPPET) for number, query_id in some.items()
            },
            "passages": [_passage(passage_id, passages.get(passage_id)) for passage_id in wanted],
        }
        if not n_queries or len(json.dumps(content)) <= max_bytes:
            return content
        n_queries //= 2


def _passage(passage_id: str, found: tuple[str, str] | None) -> tuple[str, str, str]:
    title, text = found or _NO_PASSAGE
    return passage_id, shorten(title, _MAX_TITLE), shorten(text, SNIPPET)


def _one_query(query_id: str, grades: Mapping[str, int], runs: _Runs, wanted: dict[str, int]) -> dict[str, Any]:
    """Return the top of each run and the ranks of the relevant passages; ``wanted`` numbers the page's passages."""

    def number(passage_id: str) -> int:
        return wanted.setdefault(passage_id, len(wanted))

    tops = {key: list(run.get(query_id, {}).items())[:TOP] for key, run in runs.items()}
    ranks = {key: {name: rank for rank, name in enumerate(run.get(query_id, {}), 1)} for key, run in runs.items()}
    relevant = [passage_id for passage_id, grade in grades.items() if grade > 0]
    # Of passages of one grade, those that some system found come first.
    relevant.sort(key=lambda one: (-grades[one], min(found.get(one, sys.maxsize) for found in ranks.values())))
    return {
        "top": {key: [(number(name), float(f"{score:.5g}")) for name, score in top] for key, top in tops.items()},
        "gold": {
            str(number(name)): grades[name] for top in tops.values() for name, _ in top if grades.get(name, 0) > 0
        },
        "ranks": [
            {"passage": number(name), "grade": grades[name]} | {key: found.get(name) for key, found in ranks.items()}
            for name in relevant[:_MAX_RELEVANT]
        ],
        "more_relevant": max(len(relevant) - _MAX_RELEVANT, 0),
    }


def _texts(collection: Collection, role: Role, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Return id -> (title, text) of the wanted records; the file is read once, as a stream."""
    found: dict[str, tuple[str, str]] = {}
    for batch in collection.texts(role):
        rows: Iterable[tuple[str, str, str]] = zip(batch.ids, batch.titles, batch.texts, strict=True)
        found.update((name, (title, text)) for name, title, text in rows if name in wanted)
    return found


def shorten(text: str, limit: int) -> str:
    """Return ``text`` on one line, cut at a space after at most ``limit`` characters, an ellipsis where it was cut."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    cut = text[:limit].rsplit(" ", 1)[0] if " " in text[:limit] else text[:limit]
    return f"{cut} …"
