"""What comes first for queries: whether a few passages come everywhere, and what raw vectors would have brought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def occurrence_counts(top_lists: Iterable[Sequence[str]], n_passages: int) -> NDArray[np.int64]:
    """Return N_k of every passage, (n,): in how many of the top k lists it is. Which is whose is not told."""
    _, found = np.unique([passage_id for top in top_lists for passage_id in top], return_counts=True)
    counts_n = np.zeros(n_passages, dtype=np.int64)
    counts_n[: len(found)] = found
    return counts_n


def skewness(counts_n: NDArray[np.int64]) -> float | None:
    """Return ``mean (N - mean N)^3 / sd(N)^3`` of the counts N_k, (n,): great when a few passages are in many lists.

    None where all counts are equal. Source: Radovanovic et al., JMLR 11 (2010), 2487-2531, equation 1.
    """
    centred_n = counts_n - counts_n.mean()
    spread = np.square(centred_n).mean()
    return float((centred_n**3).mean() / spread**1.5) if spread else None


def anti_hub_share(counts_n: NDArray[np.int64]) -> float:
    """Return the share of passages that are in no list. With q lists of k it is at least ``1 - q k / n``."""
    return float((counts_n == 0).mean())


def mean_overlap(top_lists: Iterable[Sequence[str]], other_lists: Iterable[Sequence[str]]) -> float:
    """Return the mean over queries of ``|A and B| / |B|`` for list A of one side and B of the other, in one order."""
    shares = [len(set(top) & set(other)) / len(other) for top, other in zip(top_lists, other_lists, strict=True)]
    return float(np.mean(shares))
