"""Heads that are one projection shared by queries and passages."""

from __future__ import annotations

import torch
from torch import Tensor

from ragcun_cache.heads.config import HeadConfig, Isotropy
from ragcun_cache.heads.head import Head, PairBatch
from ragcun_cache.heads.projection import Projection
from ragcun_cache.objectives.isotropy import isotropy_loss


class ProjectionHead(Head):
    """A projection as it was initialised (architecture ``untrained``), and the base of those that train it."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.projection = Projection(config)

    def encode_query(self, x_bd: Tensor) -> Tensor:
        """Map query vectors (b, d) to (b, e)."""
        y_be: Tensor = self.projection(x_bd)
        return y_be

    def encode_passage(self, x_bd: Tensor) -> Tensor:
        """Map passage vectors (b, d) to (b, e)."""
        y_be: Tensor = self.projection(x_bd)
        return y_be

    def project_pairs(self, batch: PairBatch) -> Tensor:
        """Project queries and passages in one pass: (2b, e), queries first, in the units that losses work in."""
        z_ne: Tensor = self.projection(torch.cat([batch.query_bd, batch.passage_bd]))
        return z_ne * self.projection.scale


class IsotropyHead(ProjectionHead):
    """A projection trained on the isotropy loss alone (the published row "pure isotropy")."""

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return ``isotropy``."""
        z_ne = self.project_pairs(batch)
        return {"isotropy": isotropy_loss(z_ne, scale_free=self.config.isotropy == Isotropy.SCALE_FREE)}
