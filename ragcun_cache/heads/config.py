"""What a head is: the names of the architectures and the options that decide how a head scores or learns."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ragcun_cache.files import sha256_json
from ragcun_cache.similarity import Similarity


class Arch(StrEnum):
    """The architectures."""

    IDENTITY = "identity"
    """The raw encoder: a row is its own output."""
    UNTRAINED = "untrained"
    """A projection at its random initialisation: the null hypothesis for every trained projection."""
    ISOTROPY = "isotropy"
    """A projection trained on the isotropy loss alone."""
    LEJEPA = "lejepa"
    """A projection with an EMA target and a predictor, trained on the predictive and the isotropy loss."""
    RESPRED = "respred"
    """A projection with a residual predictor, ``z + alpha tanh(MLP(z))``, trained on the same and a penalty on it."""
    ASYMMETRIC = "asymmetric"
    """Two projections, one for queries and one for passages, trained on a contrastive and the isotropy loss."""


ADAPTER = "adapter"
"""An adapter learnt from the judgements of one collection: what ``ragcun-cache tune`` makes, not ``train-head``."""

ArchName = Annotated[Arch | str, Field(union_mode="left_to_right")]
"""A built-in architecture, or the name of one that was registered (``heads.own``)."""


def trains(arch: Arch | str) -> bool:
    """Return whether there is anything to learn; one of the user's own always has."""
    return arch not in (Arch.IDENTITY, Arch.UNTRAINED)


def is_own(arch: Arch | str) -> bool:
    """Return whether the architecture is one of the user's own (``heads.own``)."""
    return not isinstance(arch, Arch) and arch != ADAPTER


class Init(StrEnum):
    """How a projection starts."""

    RANDOM = "random"
    """PyTorch's default, as published."""
    IDENTITY = "identity"
    """``x + MLP(x)`` with the last layer zero: scores exactly as the raw encoder before training."""


class Input(StrEnum):
    """Which vector a head is given."""

    UNIT = "unit"
    """The cached row, of norm 1."""
    POOLED = "pooled"
    """The cached row times its cached norm: the pooled vector as it was before the encoder normalised it."""


class InputScale(StrEnum):
    """The units that the MLP and the losses work in. They are undone at the output, so ranking does not feel them."""

    NONE = "none"
    SQRT_DIM = "sqrt_dim"
    """Inputs times sqrt(d): the entries of a unit-norm row then have a variance near 1."""


class Isotropy(StrEnum):
    """The form of the isotropy loss (see ``objectives.isotropy`` and ``objectives.sigreg``)."""

    PUBLISHED = "published"
    SCALE_FREE = "scale_free"
    SIGREG = "sigreg"
    """That of the LeJEPA paper: every one-dimensional shadow of the outputs should look like N(0, 1)."""


class Predictive(StrEnum):
    """The form of the predictive loss (see ``objectives.predictive``)."""

    MSE = "mse"
    COSINE = "cosine"


class Contrastive(StrEnum):
    """The form of the contrastive loss (see ``objectives.contrastive``)."""

    TRIPLET = "triplet"
    INFONCE = "infonce"


class Term(StrEnum):
    """The loss terms of the built-in architectures; those with a weight above 0 are computed."""

    ISOTROPY = "isotropy"
    PREDICTIVE = "predictive"
    CONTRASTIVE = "contrastive"
    VARIANCE = "variance"
    RESIDUAL = "residual"


class Towers(StrEnum):
    """How the two projections of an asymmetric head start."""

    INDEPENDENT = "independent"
    """Each from weights of its own, as published: at random, queries and passages then share no space."""
    COPIED = "copied"
    """Passages from the weights of queries: what the encoder aligned is still aligned."""


class Output(StrEnum):
    """What becomes of the outputs of a trained head."""

    PLAIN = "plain"
    STANDARDIZED = "standardized"
    """Mean 0 and standard deviation 1 in each dimension, over the outputs for the training pairs. Compared by l2 this
    is what ctn/ragcun calls the new formulation, compared by cosine (that is, normalised) the old."""


class AdapterMap(StrEnum):
    """The form of an adapter. All start at the identity."""

    LINEAR = "linear"
    """``W x + b``, from ``W = I`` and ``b = 0``."""
    LOW_RANK = "low_rank"
    """``x + B A x``, from ``B = 0``; A is (rank, d)."""
    MLP = "mlp"
    """``x + MLP(x)``, the projection of the other heads, its last layer from zero."""


class Side(StrEnum):
    """Which vectors an adapter moves."""

    QUERY = "query"
    """Only queries: the index stays as it is."""
    BOTH = "both"
    """Queries and passages, by one map: the index is built again."""


class AdapterShape(BaseModel):
    """What an adapter is made of; ``rank`` is given for ``low_rank`` and for nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    map: AdapterMap = AdapterMap.LINEAR
    side: Side = Side.QUERY
    rank: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _rank_of_low_rank(self) -> Self:
        if (self.rank is None) == (self.map == AdapterMap.LOW_RANK):
            raise ValueError(f"a {self.map} adapter has {'no' if self.rank else 'a'} rank")
        return self


class HeadConfig(BaseModel):
    """Everything needed to build one head, apart from its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: ArchName
    in_dim: int = Field(gt=0)
    out_dim: int = Field(gt=0)
    similarity: Similarity
    init: Init = Init.RANDOM
    input: Input = Input.UNIT
    input_scale: InputScale = InputScale.NONE
    output: Output = Output.PLAIN
    towers: Towers = Towers.INDEPENDENT
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    terms: tuple[Term, ...] = (Term.ISOTROPY, Term.PREDICTIVE)
    isotropy: Isotropy = Isotropy.PUBLISHED
    predictive: Predictive = Predictive.MSE
    contrastive: Contrastive = Contrastive.INFONCE
    contrastive_similarity: Similarity = Similarity.COSINE
    temperature: float = Field(default=0.05, gt=0.0)
    margin: float = Field(default=0.1, ge=0.0)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    stop_gradient: bool = True
    predictor_layers: int = Field(default=2, ge=0, le=2)
    predictor_init: Init = Init.RANDOM
    residual_tanh: bool = True
    adapter: AdapterShape | None = None

    @model_validator(mode="after")
    def _adapter_has_a_shape(self) -> Self:
        if (self.arch == ADAPTER) != (self.adapter is not None):
            raise ValueError(f"arch {self.arch} and adapter {self.adapter} do not go together")
        return self

    @model_validator(mode="after")
    def _identity_keeps_the_dimension(self) -> Self:
        if self.out_dim != self.in_dim and (self.arch == Arch.IDENTITY or self.init == Init.IDENTITY):
            raise ValueError(f"a head that starts at the identity has out_dim = in_dim = {self.in_dim}")
        return self

    def scoring_sha256(self) -> str:
        """Hash the fields that scores depend on, given the weights; the others only shape training."""
        return sha256_json(self.model_dump(mode="json", include=_SCORING, exclude_none=True))


_SCORING = {"arch", "in_dim", "out_dim", "similarity", "init", "input", "input_scale", "output", "adapter"}
