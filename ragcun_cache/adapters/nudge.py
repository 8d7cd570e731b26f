"""NUDGE: passages moved toward the training queries that they answer (Zeighami et al., arXiv 2409.02343)."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements


class Nudge(StrEnum):
    """Which constraint the moved passage obeys."""

    M = "m"
    """It moves by at most ``reach``, and is made a unit vector by the search (cosine)."""
    N = "n"
    """It stays a unit vector and moves by at most ``sqrt(reach)``."""


def nudge_passages(
    passage_nd: NDArray[np.float32],
    query_md: NDArray[np.float32],
    judgements: Judgements,
    reach: float,
    kind: Nudge,
) -> NDArray[np.float32]:
    """Return the passages (n, d), unit rows, those that are relevant to a training query moved toward their queries.

    Each maximises the sum of its products with the queries that it is relevant to, weighted by grade, under the
    constraint of ``kind``. M: ``p + reach g / |g|`` for that weighted sum g. N, with ``|p' - p|^2 <= reach``: turned
    from p toward g by ``min(angle(p, g), arccos(1 - reach / 2))``. ``query_md`` are the unit vectors of the queries in
    ``judgements``. A ``reach`` of 0 moves nothing.
    """
    moved_nd = passage_nd.copy()
    toward_nd = np.zeros_like(passage_nd)
    np.add.at(toward_nd, judgements.passage_j, query_md[judgements.owner_j] * judgements.grade_j[:, None])
    touched = np.unique(judgements.passage_j)
    goal_td = _unit(toward_nd[touched])
    start_td = passage_nd[touched]
    if kind == Nudge.M:
        moved_nd[touched] = _unit(start_td + np.float32(reach) * goal_td)
        return moved_nd
    cosine_t = np.clip(np.einsum("td,td->t", start_td, goal_td), -1.0, 1.0)
    angle_t = np.minimum(np.arccos(cosine_t), np.arccos(1.0 - reach / 2.0))[:, None]
    across_td = _unit(goal_td - cosine_t[:, None] * start_td)
    moved_nd[touched] = _unit(np.cos(angle_t) * start_td + np.sin(angle_t) * across_td)
    return moved_nd


def _unit(rows_nd: NDArray[np.floating]) -> NDArray[np.float32]:
    norm_n = np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return (rows_nd / np.where(norm_n > 0, norm_n, 1)).astype(np.float32, copy=False)
