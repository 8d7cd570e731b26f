"""Texts of one shard → vectors, through a model that is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.backend import Backend, OutOfMemory
from ragcun_cache.encoder.batches import Batch, plan_batches
from ragcun_cache.encoder.phases import NOTHING_DONE, Phases
from ragcun_cache.encoder.tokens import PackedTokens, Tokens
from ragcun_cache.progress import Advance

_PIECE_ROWS = 1024


class RowError(Exception):
    """One text cannot be encoded: its position among those given, the problem, what was found, how to mend it."""

    def __init__(self, position: int, problem: str, found: str | None, fix: str) -> None:
        super().__init__(position, problem, found, fix)
        self.position, self.problem, self.found, self.fix = position, problem, found, fix


@dataclass(frozen=True)
class Encoded:
    """What became of some texts, in their order.

    Attributes:
        vectors_nd: (rows, dim) unit vectors in the dtype that they are stored in.
        norms: (rows,) float32, from before normalisation.
        n_tokens: (rows,) int32.
        truncated: (rows,) bool.
        phases: what it took.
    """

    vectors_nd: NDArray[np.floating]
    norms: NDArray[np.float32]
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    phases: Phases = NOTHING_DONE


NOTHING = Encoded(np.empty((0, 0), np.float32), np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0, bool))
"""What becomes of no texts, without asking a model."""


def tokenise_pieces(texts: list[str], backend: Backend) -> Iterator[Tokens]:
    """Tokenise some texts at a time: a shard's token ids as Python integers would be large."""
    for start in range(0, len(texts), _PIECE_ROWS):
        yield backend.tokenise(texts[start : start + _PIECE_ROWS])


def forward(tokens: PackedTokens, backend: Backend, limit: int, dtype: str, advance: Advance) -> Encoded:
    """Return the vectors of texts that are tokenised.

    A row is padded to a length that depends on its text alone, so its vector does not depend on its neighbours. A batch
    that does not fit in memory is halved, and so is the budget of all that follow, down to a text of ``limit`` tokens.

    Args:
        tokens: the texts.
        backend: the model; its ``batch_tokens`` is the budget.
        limit: the most tokens that a text has.
        dtype: of the vectors that are returned.
        advance: told rows and tokens of every batch.

    Raises:
        RowError: a text does not fit in memory by itself, or its vector is not finite.
    """
    started = time.perf_counter()
    n_tokens = tokens.n_tokens
    vectors_nd = np.empty((len(n_tokens), backend.dim), dtype=dtype)
    norms = np.empty(len(n_tokens), dtype=np.float32)
    padded = 0
    plan = plan_batches(n_tokens.tolist(), backend.batch_tokens, limit)[::-1]
    while plan:
        batch = plan.pop()
        rows, size = batch.rows, len(batch.rows) * batch.length
        if len(rows) > 1 and size > backend.batch_tokens:
            plan += _halves(batch)
            continue
        try:
            unit_bd, norm_b = backend.embed([tokens.row(row) for row in rows], batch.length)
        except OutOfMemory:
            if len(rows) == 1:
                raise RowError(
                    rows[0],
                    "one text does not fit in the device's memory",
                    f"{n_tokens[rows[0]]} tokens",
                    "encode on another device, or with a smaller --max-seq-length",
                ) from None
            budget = backend.batch_tokens
            backend.batch_tokens = max(min(size // 2, budget), min(limit, budget))
            plan += _halves(batch)
            continue
        if not np.isfinite(unit_bd).all():
            bad = rows[int(np.flatnonzero(~np.isfinite(unit_bd).all(axis=1))[0])]
            raise RowError(
                bad,
                "the encoder returned a vector that is not finite",
                None,
                "encode with --backend torch --precision fp32",
            )
        vectors_nd[rows], norms[rows] = unit_bd, norm_b
        padded += size
        advance(len(rows), tokens=float(n_tokens[rows].sum()))
    phases = Phases(forward=time.perf_counter() - started, tokens=int(n_tokens.sum()), padded_tokens=padded)
    return Encoded(vectors_nd, norms, n_tokens, tokens.truncated, phases)


def _halves(batch: Batch) -> list[Batch]:
    """Return the second half and the first: a plan is worked off from its end."""
    half = len(batch.rows) // 2
    return [Batch(batch.rows[half:], batch.length), Batch(batch.rows[:half], batch.length)]
