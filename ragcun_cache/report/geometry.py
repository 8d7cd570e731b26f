"""What a head does to the space: the spectrum of its outputs, and how relevant pairs stand out from random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.diagnostics.geometry import effective_rank, mean_cosine, singular_values
from ragcun_cache.evaluation.subject import Encode, Subject
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

MAX_ROWS = 20_000
"""Passages, and pairs, that are looked at; of more, a sample is drawn."""
_BINS = 48
_SPECTRUM_POINTS = 80
_NAMES = {Similarity.COSINE: "cosine", Similarity.DOT: "dot product", Similarity.L2: "minus the squared distance"}


@dataclass(frozen=True)
class Sample:
    """Rows of a subject's caches, the same for all systems.

    ``passage_n`` are passages; ``relevant_p2`` and ``random_p2`` are (query row, passage row) of judged pairs with a
    grade above 0 and of pairs drawn at random from the same queries and all passages.
    """

    passage_n: NDArray[np.int64]
    relevant_p2: NDArray[np.int64]
    random_p2: NDArray[np.int64]


def draw_sample(subject: Subject) -> Sample:
    """Return the rows to look at: all of them, or ``MAX_ROWS`` drawn always the same way."""
    rng = np.random.default_rng(0)
    query, passage = subject.pair.query, subject.pair.passage
    query_row = {query_id: row for row, query_id in enumerate(query.ids)}
    passage_row = {passage_id: row for row, passage_id in enumerate(passage.ids)}
    relevant = [
        (query_row[query_id], passage_row[passage_id])
        for query_id, grades in subject.qrels.items()
        for passage_id, grade in grades.items()
        if grade > 0 and query_id in query_row and passage_id in passage_row
    ]
    relevant_p2 = _some(np.array(relevant, dtype=np.int64).reshape(-1, 2), rng)
    drawn = max(len(relevant_p2), MAX_ROWS // 2)
    query_p = rng.choice(relevant_p2[:, 0], drawn) if len(relevant_p2) else np.empty(0, np.int64)
    random_p2 = np.stack([query_p, rng.integers(0, passage.rows, len(query_p))], axis=1)
    return Sample(np.sort(_some(np.arange(passage.rows), rng)), relevant_p2, random_p2)


def _some(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MAX_ROWS else rng.choice(rows, MAX_ROWS, replace=False)


def measure_geometry(subject: Subject, sample: Sample, encode: Encode, similarity: Similarity) -> dict[str, Any]:
    """Return spectrum, effective rank, mean cosine, and the histograms of similarities of one system."""
    pairs_p2 = np.concatenate([sample.relevant_p2, sample.random_p2])
    # Every row once, though it may be in many pairs.
    query_rows, query_p = np.unique(pairs_p2[:, 0], return_inverse=True)
    passage_rows = np.union1d(sample.passage_n, pairs_p2[:, 1])
    query_qe = _encoded(subject, encode, query_rows, Role.QUERY)
    encoded_ne = _encoded(subject, encode, passage_rows, Role.PASSAGE)
    passage_p = np.searchsorted(passage_rows, pairs_p2[:, 1])
    similarity_p = _similarities(query_qe[query_p], encoded_ne[passage_p], similarity)
    relevant_p, random_p = np.split(similarity_p, [len(sample.relevant_p2)])
    passage_ne = encoded_ne[np.searchsorted(passage_rows, sample.passage_n)]
    spectrum_e = singular_values(passage_ne)
    ends = np.percentile(similarity_p, [0.05, 99.95]) if len(similarity_p) else (0.0, 1.0)
    edges = np.linspace(ends[0], ends[1], _BINS + 1)
    sd = float(random_p.std()) if len(random_p) else 0.0
    return {
        "dim": passage_ne.shape[1],
        "similarity": _NAMES[similarity],
        "spectrum": _thinned(spectrum_e),
        "effective_rank": effective_rank(spectrum_e),
        "mean_cosine": mean_cosine(passage_ne) if len(passage_ne) > 1 else None,
        "separation": float((relevant_p.mean() - random_p.mean()) / sd) if sd else None,
        "histogram": {
            "edges": [float(f"{edge:.5g}") for edge in edges],
            "relevant": np.histogram(relevant_p, edges)[0].tolist(),
            "random": np.histogram(random_p, edges)[0].tolist(),
        },
    }


def _encoded(subject: Subject, encode: Encode, rows: NDArray[np.int64], role: Role) -> NDArray[np.float32]:
    cache = subject.pair.query if role == Role.QUERY else subject.pair.passage
    return encode(cache.gather(rows), cache.norms[rows], role)


def _thinned(singular_e: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Return (rank from 1, value to the greatest), at ranks that lie evenly on a logarithmic axis."""
    if not len(singular_e) or not singular_e[0]:
        return []
    ranks = np.unique(np.geomspace(1, len(singular_e), _SPECTRUM_POINTS).round().astype(int))
    scaled = singular_e[ranks - 1] / singular_e[0]
    # What is left below this is rounding: the rank of the outputs is used up.
    return [(int(rank), float(f"{value:.4g}")) for rank, value in zip(ranks, scaled, strict=True) if value > 1e-7]


def _similarities(
    query_pe: NDArray[np.float32], passage_pe: NDArray[np.float32], similarity: Similarity
) -> NDArray[np.float64]:
    """Return how the head compares row i of one with row i of the other, (p,)."""
    if similarity is Similarity.L2:
        negated_p: NDArray[np.float64] = -np.square(query_pe - passage_pe).sum(axis=1, dtype=np.float64)
        return negated_p
    found_p: NDArray[np.float64] = np.einsum("pe,pe->p", query_pe, passage_pe, dtype=np.float64)
    if similarity is Similarity.COSINE:
        norms_p = np.linalg.norm(query_pe, axis=1) * np.linalg.norm(passage_pe, axis=1)
        found_p = np.divide(found_p, norms_p, out=np.zeros_like(found_p), where=norms_p > 0)
    return found_p
