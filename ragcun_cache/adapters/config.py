"""Settings of one adapter's training."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from ragcun_cache.heads.config import ADAPTER, AdapterShape, HeadConfig, Init, InputScale
from ragcun_cache.similarity import Similarity


class Loss(StrEnum):
    """What an adapter is trained on."""

    SOFTMAX = "softmax"
    """Listwise, over the whole corpus where the adapter moves queries only and the corpus is within the budget."""
    PAIRWISE = "pairwise"
    """Weighted pairwise, over candidates."""
    MARGIN = "margin"
    """Hinge, over candidates."""


class AdapterConfig(BaseModel):
    """How an adapter is trained.

    ``temperature`` divides cosines (the margin is taken before). ``identity_weight`` times the squared departure from
    the identity is added to the loss. Above ``full_corpus_rows`` passages, negatives are the ``hard_negatives`` best
    passages of each training query by its raw vector, and in the softmax ``drawn_negatives`` more that each batch draws
    of the whole corpus, which stand for all the others. Without these, nothing keeps an adapter from moving queries to
    where no negative is. A mined negative whose cosine with one of the query's relevant passages is at least
    ``duplicate`` is left out: it says the same, unjudged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shape: AdapterShape = AdapterShape()
    loss: Loss = Loss.SOFTMAX
    graded: bool = True
    temperature: float = Field(default=0.05, gt=0.0)
    margin: float = Field(default=0.1, gt=0.0)
    identity_weight: float = Field(default=0.01, ge=0.0)
    epochs: int = Field(default=20, ge=0)
    batch_size: int = Field(default=128, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    full_corpus_rows: int = Field(default=200_000, ge=0)
    hard_negatives: int = Field(default=64, gt=0)
    drawn_negatives: int = Field(default=1024, ge=0)
    duplicate: float = Field(default=0.95, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0, lt=2**63)

    def head_config(self, dim: int) -> HeadConfig:
        """Return the config of the head that is trained, for vectors of ``dim``."""
        return HeadConfig(
            arch=ADAPTER,
            in_dim=dim,
            out_dim=dim,
            similarity=Similarity.COSINE,
            init=Init.IDENTITY,
            input_scale=InputScale.SQRT_DIM,
            dropout=0.0,
            adapter=self.shape,
        )
