"""Which texts go through the encoder together, and to what length they are padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Where a token attends to so many on each side (ModernBERT), the last of more padding would attend to padding alone, of
# which OpenVINO makes NaN.
_MAX_STEP = 64


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    Attributes:
        rows: row numbers.
        length: tokens that every row is padded to.
    """

    rows: list[int]
    length: int


def padded_length(n_tokens: int, limit: int) -> int:
    """Return the length that a text of ``n_tokens`` is padded to: at most a sixteenth more, never above ``limit``.

    Nor are there ever 64 tokens of padding.

    It depends on the text alone. Sums over padded keys change the last bits of a vector, so a length that depended on
    the batch would make a text's vector depend on its neighbours; this way it is the same in every batch.

    >>> [padded_length(n, 384) for n in (7, 9, 33, 130, 380)]
    [7, 9, 34, 136, 384]
    """
    step = min(1 << (n_tokens.bit_length() - 5), _MAX_STEP) if n_tokens >= 16 else 1
    return max(n_tokens, min(-(-n_tokens // step) * step, limit))


def plan_batches(n_tokens: Sequence[int], batch_tokens: int, limit: int) -> list[Batch]:
    """Group rows so that little is spent on padding and no forward pass is too large.

    Only rows of one padded length share a batch. The longest come first, so a batch that does not fit in memory fails
    at once. A row that is longer than the budget by itself is a batch of one.

    Args:
        n_tokens: tokens of each row.
        batch_tokens: the budget, padded length × number of rows.
        limit: the longest text that the encoder reads, in tokens.

    Returns:
        Batches; every row is in exactly one.
    """
    by_length: dict[int, list[int]] = {}
    for row, count in enumerate(n_tokens):
        by_length.setdefault(padded_length(count, limit), []).append(row)
    batches = []
    for length in sorted(by_length, reverse=True):
        rows = by_length[length]
        size = max(1, batch_tokens // max(length, 1))
        batches += [Batch(rows[start : start + size], length) for start in range(0, len(rows), size)]
    return batches
