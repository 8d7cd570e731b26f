"""The LeJEPA-style head: online projection, EMA target, predictor."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig, Term
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.projected import ProjectionHead
from ragcun_cache.heads.projection import Projection, make_predictor
from ragcun_cache.heads.terms import predictive_term, shared_terms


class LejepaHead(ProjectionHead):
    """Predicts the target's output for a passage from the online output for its query, kept apart by isotropy.

    The target is a moving average of the online projection (``ema``), run without dropout; with ``ema: null`` it is
    the online output itself, behind a stop-gradient unless ``stop_gradient: false``. Target and predictor exist only
    ``for_training``: retrieval uses the online projection for both roles.

    A hybrid of I-JEPA's mechanics and ctn/ragcun's isotropy loss. LeJEPA itself (arXiv 2511.08544) has neither
    stop-gradient nor teacher nor need of a predictor, and another loss: ``ema: null``, ``stop_gradient: false``,
    ``predictor_layers: 0``, ``isotropy: sigreg``.
    """

    def __init__(self, config: HeadConfig, *, for_training: bool) -> None:
        super().__init__(config)
        self.predictor = make_predictor(config) if for_training else None
        self.target: Projection | None = None
        if for_training and config.ema is not None:
            self.target = copy.deepcopy(self.projection).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LejepaHead:
        """Set training mode, except on the target, which never drops units."""
        super().train(mode)
        if self.target is not None:
            self.target.eval()
        return self

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return the terms that the config has a weight for. Only for a head that was built ``for_training``."""
        assert self.predictor is not None, "built for retrieval: there is no predictor"
        z_query_be, z_passage_be = self.project_pairs(batch)
        terms = shared_terms(self.config, batch, z_query_be, z_passage_be, step)
        if Term.PREDICTIVE in self.config.terms:
            target_be = z_passage_be
            if self.target is not None:
                with torch.no_grad():
                    target_be = self.target.scaled(batch.passage_bd)
            terms[Term.PREDICTIVE] = predictive_term(self.config, self.predictor(z_query_be), target_be)
        return terms

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the target with the online projection, unless ``ema`` is off."""
        return [] if self.target is None else [(self.target, self.projection)]
