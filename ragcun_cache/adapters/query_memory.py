"""Query memory: passages that were relevant to similar training queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.adapters.judgements import Judgements


@dataclass(frozen=True)
class QueryMemory:
    """Scores passages by the training queries that they are relevant to.

    ``s(q, p) = log(1 + c sum_i g_ip exp((q . q_i - 1) / t)) / log(1 + c)`` over the training queries ``q_i``, with
    ``g_ip`` the grade of p for ``q_i`` as a share of the best grade of ``q_i``. It is 1 where one training query is
    the query itself and has p as its best passage. ``temperature`` t says how near a query must be to count,
    ``evidence`` c how soon a little evidence is as good as much. A kernel density estimate (Parzen 1962) of the
    queries that a passage answers, on a log scale.
    """

    query_md: NDArray[np.float32]
    judgements: Judgements
    n_passages: int
    temperature: float
    evidence: float

    def scores(self, query_qd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores (q, n) of all passages for unit rows (q, d); 0 for one that was never relevant."""
        density_qn = self.density(query_qd)
        return self.score_of(density_qn, self.evidence)

    def density(self, query_qd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sum in the formula, (q, n) float32."""
        import torch

        near_mq = np.exp((self.query_md @ query_qd.T - 1.0) / self.temperature)
        judgements = self.judgements
        best_m = np.ones(len(judgements), np.float32)
        np.maximum.at(best_m, judgements.owner_j, judgements.grade_j)
        share_nm = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([judgements.passage_j, judgements.owner_j])),
            torch.from_numpy(judgements.grade_j / best_m[judgements.owner_j]),
            (self.n_passages, len(judgements)),
            check_invariants=True,
        )
        density_nq: NDArray[np.float32] = torch.sparse.mm(share_nm, torch.from_numpy(near_mq)).numpy()
        return density_nq.T

    @staticmethod
    def score_of(density: NDArray[np.float32], evidence: float) -> NDArray[np.float32]:
        """Return the score that a density of any shape stands for."""
        score: NDArray[np.float32] = (np.log1p(evidence * density) / np.log1p(evidence)).astype(np.float32)
        return score
