"""The asymmetric head: a projection for queries and another for passages."""

from __future__ import annotations

import copy

from torch import Tensor

from ragcun_cache.heads.config import HeadConfig, Term, Towers
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.projected import ProjectionHead
from ragcun_cache.heads.projection import Projection, make_predictor
from ragcun_cache.heads.terms import predictive_term, shared_terms
from ragcun_cache.role import Role


class AsymmetricHead(ProjectionHead):
    """Queries and passages are mapped by projections of their own, brought together by a contrastive loss.

    With ``towers: independent`` and a random start nothing of the encoder's alignment is left at first: a query is as
    near to any passage as to its own. Source: ``asymmetric_model.py`` of ctn/ragcun, without a predictor, and
    ``asymmetric_predictor_model.py`` with one.
    """

    def __init__(self, config: HeadConfig, *, for_training: bool) -> None:
        super().__init__(config)
        copied = config.towers == Towers.COPIED
        self.passage_projection = copy.deepcopy(self.projection) if copied else Projection(config)
        predicts = for_training and Term.PREDICTIVE in config.terms
        self.predictor = make_predictor(config) if predicts else None

    def projection_of(self, role: Role) -> Projection:
        """Return the projection of queries or that of passages."""
        return self.projection if role == Role.QUERY else self.passage_projection

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return the terms that the config has a weight for; isotropy is the mean of that of the two projections."""
        z_query_be = self.projection.scaled(batch.query_bd)
        z_passage_be = self.passage_projection.scaled(batch.passage_bd)
        terms = shared_terms(self.config, batch, z_query_be, z_passage_be, step, one_space=False)
        if self.predictor is not None:
            terms[Term.PREDICTIVE] = predictive_term(self.config, self.predictor(z_query_be), z_passage_be)
        return terms
