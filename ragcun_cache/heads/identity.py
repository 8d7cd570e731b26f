"""The raw encoder as a head."""

from __future__ import annotations

from torch import Tensor

from ragcun_cache.heads.head import Head


class IdentityHead(Head):
    """Each row is its own output. The baseline that every other head is compared with."""

    def encode_query(self, x_bd: Tensor) -> Tensor:
        """Return ``x_bd`` itself."""
        return x_bd

    def encode_passage(self, x_bd: Tensor) -> Tensor:
        """Return ``x_bd`` itself."""
        return x_bd
