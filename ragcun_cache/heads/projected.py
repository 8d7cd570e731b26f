"""Heads that are one projection shared by queries and passages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig, Output
from ragcun_cache.heads.head import Head, PairBatch
from ragcun_cache.heads.output import Standardize
from ragcun_cache.heads.projection import Projection
from ragcun_cache.heads.terms import shared_terms
from ragcun_cache.role import Role


class ProjectionHead(Head):
    """A projection as it was initialised (architecture ``untrained``), and the base of those that train it."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.projection = Projection(config)
        self.output = Standardize(config) if config.output == Output.STANDARDIZED else nn.Identity()

    def encode_query(self, x_bd: Tensor) -> Tensor:
        """Map query vectors (b, d) to (b, e)."""
        y_be: Tensor = self.output(self.projection_of(Role.QUERY)(x_bd))
        return y_be

    def encode_passage(self, x_bd: Tensor) -> Tensor:
        """Map passage vectors (b, d) to (b, e)."""
        y_be: Tensor = self.output(self.projection_of(Role.PASSAGE)(x_bd))
        return y_be

    def projection_of(self, role: Role) -> Projection:
        """Return the projection of queries or passages: here they are one."""
        return self.projection

    @torch.no_grad()
    def fit_output(self, query_nd: Tensor, passage_nd: Tensor) -> None:
        """Standardise, where the config says so, by the outputs for these vectors (n, d)."""
        if isinstance(self.output, Standardize):
            was_training = self.training
            self.eval()
            query_ne = self.projection_of(Role.QUERY)(query_nd)
            self.output.fit(torch.cat([query_ne, self.projection_of(Role.PASSAGE)(passage_nd)]))
            self.train(was_training)

    def project_pairs(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Project queries and passages in one pass: (b, e) each, in the units that losses work in."""
        z_ne = self.projection.scaled(torch.cat([batch.query_bd, batch.passage_bd]))
        z_query_be, z_passage_be = z_ne.chunk(2)
        return z_query_be, z_passage_be


class IsotropyHead(ProjectionHead):
    """A projection trained on terms that look at its outputs alone: isotropy, and what else has a weight."""

    def losses(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return the terms that the config has a weight for."""
        return shared_terms(self.config, batch, *self.project_pairs(batch), step)
