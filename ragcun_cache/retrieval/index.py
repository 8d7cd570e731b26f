"""Approximate indexes of FAISS, by name and parameters: ``hnsw``, ``hnsw:m=16,ef_search=64``, ``ivfpq``, ``sq8``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragcun_cache.errors import ConfigError, EvaluationError, unknown_choice
from ragcun_cache.retrieval.run import Run, rank_order
from ragcun_cache.similarity import Similarity

FLAT = "flat"
"""The exact search of ``ragcun_cache.retrieval.search``."""

_TRAINING_ROWS = 131_072


class Index(BaseModel):
    """One kind of FAISS index and its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Kind and every parameter, from which it can be read again."""
        given = ",".join(f"{name}={value}" for name, value in sorted(self.model_dump().items()))
        return f"{self.kind}:{given}" if given else self.kind

    def build(self, dim: int, rows: int, metric: int) -> Any:
        """Return an empty FAISS index for ``rows`` vectors, compared by FAISS's ``metric``."""
        raise NotImplementedError


class Faiss(Index):
    """``IndexFlat``: every vector compared in float32, exact but for rounding."""

    kind: ClassVar[str] = "faiss"

    def build(self, dim: int, rows: int, metric: int) -> Any:
        """Return an empty ``IndexFlat``."""
        import faiss

        return faiss.IndexFlat(dim, metric)


class Hnsw(Index):
    """A graph of near neighbours (Malkov and Yashunin, 2016): ``m`` links a vector, beams of ``ef_…`` candidates."""

    kind: ClassVar[str] = "hnsw"
    m: int = Field(default=32, ge=2)
    ef_construction: int = Field(default=200, ge=1)
    ef_search: int = Field(default=256, ge=1)

    def build(self, dim: int, rows: int, metric: int) -> Any:
        """Return an empty ``IndexHNSWFlat``."""
        import faiss

        index = faiss.IndexHNSWFlat(dim, self.m, metric)
        index.hnsw.efConstruction, index.hnsw.efSearch = self.ef_construction, self.ef_search
        return index


class IvfPq(Index):
    """Product-quantised codes in inverted lists (Jégou, Douze and Schmid, 2011).

    ``lists`` of which ``probes`` are searched, and ``bytes`` a vector. 0 stands for 4·√rows lists, and for one byte
    for every 8 dimensions, or as near to it as divides them.
    """

    kind: ClassVar[str] = "ivfpq"
    lists: int = Field(default=0, ge=0)
    probes: int = Field(default=32, ge=1)
    bytes: int = Field(default=0, ge=0)

    def build(self, dim: int, rows: int, metric: int) -> Any:
        """Return an untrained ``IndexIVFPQ``."""
        import faiss

        n_lists = self.lists or max(1, min(round(4 * rows**0.5), min(rows, _TRAINING_ROWS) // 39))
        size = self.bytes or max(part for part in range(1, max(dim // 8, 1) + 1) if dim % part == 0)
        if dim % size:
            raise EvaluationError(
                "the codes of an ivfpq index must divide the vectors evenly",
                expected=f"bytes that divide {dim} dimensions",
                found=f"bytes={size}",
            )
        if rows < 256:
            raise EvaluationError(
                "the corpus is too small for an ivfpq index", expected="256 passages", found=rows, fix="--index flat"
            )
        if n_lists > (most := min(rows, _TRAINING_ROWS)):
            raise EvaluationError(
                "an ivfpq index cannot have more lists than it learns them from passages",
                expected=f"at most {most:,} lists",
                found=f"lists={n_lists}",
            )
        index = faiss.IndexIVFPQ(faiss.IndexFlat(dim, metric), dim, n_lists, size, 8, metric)
        index.nprobe = self.probes
        # Too few passages for good centroids show in the recall that is printed; FAISS need not say it on stderr.
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        return index


class Sq8(Index):
    """Every vector compared, each number in one byte between the smallest and the largest of its dimension."""

    kind: ClassVar[str] = "sq8"

    def build(self, dim: int, rows: int, metric: int) -> Any:
        """Return an untrained ``IndexScalarQuantizer``."""
        import faiss

        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric)


KINDS: dict[str, type[Index]] = {index.kind: index for index in (Faiss, Hnsw, IvfPq, Sq8)}


def parse_index(text: str) -> Index | None:
    """Return the index that ``text`` names, such as ``hnsw:m=16``; None for ``flat``, the exact search.

    Raises:
        ConfigError: the kind or a parameter is unknown, or out of range; the error names the valid ones.

    """
    kind, _, rest = text.partition(":")
    if kind != FLAT and kind not in KINDS:
        raise unknown_choice("index", kind, [FLAT, *KINDS])
    given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    known = {} if kind == FLAT else KINDS[kind].model_fields
    if unknown := [name for name in given if name not in known]:
        if not known:
            raise ConfigError(f"index {kind} has no parameters", found=unknown[0])
        raise unknown_choice(f"parameter of index {kind}", unknown[0], known)
    if kind == FLAT:
        return None
    try:
        return KINDS[kind].model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(
            f"parameter {name} of index {kind} is out of range", expected=first["msg"], found=given[name]
        ) from None


def index_search(
    index: Index,
    query_qe: NDArray[np.floating],
    query_ids: Sequence[str],
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    passage_ids: Sequence[str],
    similarity: Similarity,
    k: int,
) -> Run:
    """Return the ``k`` passages of each query that an approximate index finds, by the scores that it gives them.

    The same vectors give the same run: what is drawn is drawn by FAISS's fixed seeds, and graphs are built by one
    thread. The index is in memory, and with it, for ``faiss`` and ``hnsw``, all vectors in float32.

    Args:
        index: kind and parameters.
        query_qe: (q, e) vectors.
        query_ids: q ids.
        blocks: returns the passages block by block, each (b, e), as often as it is called.
        passage_ids: n ids.
        similarity: as in ``search``.
        k: depth of the run.

    Raises:
        EvaluationError: the index cannot be built for this corpus.

    """
    import faiss

    rows, dim = len(passage_ids), query_qe.shape[1]
    if not rows or not len(query_ids):
        return {query_id: {} for query_id in query_ids}
    is_l2 = similarity is Similarity.L2
    built = index.build(dim, rows, faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT)
    if not built.is_trained:
        built.train(_sample(blocks(), rows, similarity))
    with _one_thread() if index.kind == Hnsw.kind else nullcontext():
        for block_be in blocks():
            built.add(_comparable(block_be, similarity))
    score_qk, row_qk = built.search(_comparable(query_qe, similarity), min(k, rows))
    if is_l2:
        score_qk = -score_qk
    # FAISS fills up with -1 what it does not find.
    return {
        query_id: rank_order(
            ((score, passage_ids[row]) for score, row in zip(scores, found, strict=True) if row >= 0), k
        )
        for query_id, scores, found in zip(query_ids, score_qk.tolist(), row_qk.tolist(), strict=True)
    }


def recall_at_10(run: Run, exact: Run) -> float:
    """Return the share of the ten best passages of ``exact`` that are among the ten best of ``run``, by query."""
    shares = [
        len(best.intersection(list(run[query_id])[:10])) / len(best)
        for query_id, scores in exact.items()
        if (best := set(list(scores)[:10]))
    ]
    return float(np.mean(shares)) if shares else 1.0


def _comparable(vectors_be: NDArray[np.floating], similarity: Similarity) -> NDArray[np.float32]:
    plain_be: NDArray[np.float32] = np.ascontiguousarray(vectors_be, dtype=np.float32)
    if similarity is not Similarity.COSINE:
        return plain_be
    norm_b = np.linalg.norm(plain_be, axis=1, keepdims=True)
    norm_b[norm_b == 0] = 1
    unit_be: NDArray[np.float32] = plain_be / norm_b
    return unit_be


def _sample(blocks: Iterable[NDArray[np.floating]], rows: int, similarity: Similarity) -> NDArray[np.float32]:
    """Return the rows that an index is trained on: all, or as many as are worth it, drawn with a fixed seed."""
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:_TRAINING_ROWS])
    parts, first = [], 0
    for block_be in blocks:
        within = chosen[(chosen >= first) & (chosen < first + len(block_be))] - first
        parts.append(_comparable(block_be[within], similarity))
        first += len(block_be)
    return np.concatenate(parts)


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
