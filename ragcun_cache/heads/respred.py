"""The ResPred head: a projection whose passage outputs are its query outputs and a learnt residual."""

from __future__ import annotations

from torch import Tensor

from ragcun_cache.heads.config import HeadConfig, Term
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.projected import ProjectionHead
from ragcun_cache.heads.projection import ResidualPredictor
from ragcun_cache.heads.terms import predictive_term, shared_terms
from ragcun_cache.objectives.residual import residual_loss


class ResPredHead(ProjectionHead):
    """Predicts the output for a passage from that for its query as ``z + alpha tanh(MLP(z))``, the residual penalised.

    The predictor exists only ``for_training``; retrieval uses the projection for both roles.
    Source: ``respred_model.py`` of ctn/ragcun.
    """

    def __init__(self, config: HeadConfig, *, for_training: bool) -> None:
        super().__init__(config)
        self.predictor = ResidualPredictor(config) if for_training else None
        self._watched: dict[str, Tensor] = {}

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return the terms that the config has a weight for. Only for a head that was built ``for_training``."""
        assert self.predictor is not None, "built for retrieval: there is no predictor"
        z_query_be, z_passage_be = self.project_pairs(batch)
        terms = shared_terms(self.config, batch, z_query_be, z_passage_be, step)
        prediction_be, delta_be = self.predictor(z_query_be)
        if Term.PREDICTIVE in self.config.terms:
            terms[Term.PREDICTIVE] = predictive_term(self.config, prediction_be, z_passage_be)
        if Term.RESIDUAL in self.config.terms:
            terms[Term.RESIDUAL] = residual_loss(delta_be)
        size_be = delta_be.detach().abs()
        self._watched = {
            "residual_mean": size_be.mean(),
            "residual_max": size_be.max(),
            "residual_square": size_be.square().sum(dim=1).mean(),
            "residual_alpha": self.predictor.alpha.detach().clone(),
        }
        return terms

    def watched(self) -> dict[str, Tensor]:
        """Return mean and maximum of ``|delta|``, its mean squared norm, and alpha, for the latest batch."""
        return self._watched
