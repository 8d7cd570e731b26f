"""Which texts go through the encoder together."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(n_tokens: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group rows so that little is spent on padding and no forward pass is too large.

    Rows are sorted by token count, the longest first (so a batch that does not fit in memory fails at once), and a
    batch is closed when one more row would make it cost more than ``batch_tokens``, padding included. A row that is
    longer than the budget by itself is a batch of one.

    Args:
        n_tokens: tokens of each row.
        batch_tokens: the budget, longest row × number of rows.

    Returns:
        Row numbers of each batch; every row is in exactly one.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(n_tokens)), key=lambda row: (-n_tokens[row], row)):
        if batches and n_tokens[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
