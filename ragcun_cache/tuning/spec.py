"""What a tuned system is made of: vectors, BM25 and query memory, and how their scores become one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragcun_cache.adapters.config import AdapterConfig
from ragcun_cache.adapters.nudge import Nudge
from ragcun_cache.heads.config import Side


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Raw(_Frozen):
    """The vectors of the encoder."""

    kind: Literal["raw"] = "raw"

    def __str__(self) -> str:
        return "raw"


class TrainedHead(_Frozen):
    """Those of a trained head."""

    kind: Literal["head"] = "head"
    name: str

    def __str__(self) -> str:
        return f"head {self.name}"


class SoftZca(_Frozen):
    """Partly whitened on both sides, by the passages (``closed_form.soft_zca``)."""

    kind: Literal["soft_zca"] = "soft_zca"
    exponent: float

    def __str__(self) -> str:
        return f"soft-ZCA {self.exponent:g}"


class TemperedPca(_Frozen):
    """Leading directions of the passages on both sides (``closed_form.tempered_pca``)."""

    kind: Literal["tempered_pca"] = "tempered_pca"
    rank: int
    temper: float

    def __str__(self) -> str:
        return f"PCA {self.rank}, temper {self.temper:g}"


class Ridge(_Frozen):
    """Queries by the linear map nearest to the identity that leads to their passages (``ridge_to_identity``)."""

    kind: Literal["ridge"] = "ridge"
    strength: float

    def __str__(self) -> str:
        return f"ridge {self.strength:g}"


class Procrustes(_Frozen):
    """Queries by the rotation that leads to their passages."""

    kind: Literal["procrustes"] = "procrustes"

    def __str__(self) -> str:
        return "Procrustes"


class WithinPair(_Frozen):
    """Queries by the inverse covariance of the differences within pairs."""

    kind: Literal["within_pair"] = "within_pair"
    shrinkage: float

    def __str__(self) -> str:
        return f"within-pair {self.shrinkage:g}"


class Adapter(_Frozen):
    """A trained adapter, ``alpha`` of it and the rest of the identity."""

    kind: Literal["adapter"] = "adapter"
    config: AdapterConfig
    alpha: float = 1.0

    def __str__(self) -> str:
        config, shape = self.config, self.config.shape
        rank = f" {shape.rank}" if shape.rank else ""
        form = f"{self.form}{rank} adapter{self.sides}"
        return f"{form} ({config.loss}, t {config.temperature:g}, {config.epochs} epochs, alpha {self.alpha:g})"

    @property
    def form(self) -> str:
        """The form of its map in words."""
        return str(self.config.shape.map).replace("_", "-")

    @property
    def sides(self) -> str:
        """What is said of it if it does not move queries alone."""
        return "" if self.config.shape.side == Side.QUERY else ", both sides"


class Nudged(_Frozen):
    """Passages moved toward the training queries that they answer."""

    kind: Literal["nudge"] = "nudge"
    variant: Nudge
    reach: float

    def __str__(self) -> str:
        return f"NUDGE-{str(self.variant).upper()} {self.reach:g}"


Dense = Annotated[
    Raw | TrainedHead | SoftZca | TemperedPca | Ridge | Procrustes | WithinPair | Adapter | Nudged,
    Field(discriminator="kind"),
]


class Fusion(StrEnum):
    """How two rankings become one."""

    CONVEX = "convex"
    RECIPROCAL_RANK = "rrf"


class Feedback(_Frozen):
    """Queries moved toward the best ``passages`` of a fusion with BM25, keeping ``weight`` of themselves.

    That fusion is convex, with ``dense_weight`` for the same vectors before they are moved.
    """

    passages: int
    weight: float
    dense_weight: float = 0.6


class Memory(_Frozen):
    """Query memory (``QueryMemory``), added with ``weight`` to scores that lie between 0 and 1."""

    temperature: float
    evidence: float
    weight: float


class Spec(_Frozen):
    """A system: dense vectors, fused with BM25 if ``bm25`` is set, and query memory on top.

    ``dense_weight`` is the weight of the dense score in the convex fusion; 0 is BM25 alone.
    """

    dense: Dense = Raw()
    bm25: Fusion | None = None
    dense_weight: float = Field(default=1.0, ge=0.0, le=1.0)
    feedback: Feedback | None = None
    memory: Memory | None = None

    def __str__(self) -> str:
        parts = [] if self.bm25 and not self.dense_weight else [str(self.dense)]
        if self.feedback:
            parts.append(f"feedback ({self.feedback.passages}, {self.feedback.weight:g})")
        if self.bm25 == Fusion.RECIPROCAL_RANK:
            parts.append("BM25 (RRF)")
        elif self.bm25:
            parts.append(f"BM25 ({self.dense_weight:g} dense)" if self.dense_weight else "BM25")
        if self.memory:
            memory = self.memory
            parts.append(f"memory (t {memory.temperature:g}, c {memory.evidence:g}, {memory.weight:g})")
        return " + ".join(parts)

    @property
    def family(self) -> str:
        """What it is called whatever its numbers: systems of one family differ in nothing else."""
        dense = self.dense
        name = dense.kind.replace("_", " ")
        if isinstance(dense, Adapter):
            name = f"{dense.form} adapter{dense.sides} ({dense.config.loss})"
        elif isinstance(dense, Nudged):
            name = f"NUDGE-{str(dense.variant).upper()}"
        elif isinstance(dense, TrainedHead):
            name = str(dense)
        parts = [] if self.bm25 and not self.dense_weight else [name]
        parts += ["feedback"] if self.feedback else []
        parts += {None: [], Fusion.CONVEX: ["BM25"], Fusion.RECIPROCAL_RANK: ["BM25 (RRF)"]}[self.bm25]
        return " + ".join([*parts, *(["memory"] if self.memory else [])])

    @property
    def is_raw(self) -> bool:
        """Whether this is the raw encoder and nothing else."""
        return self == Spec()

    @property
    def parts(self) -> int:
        """How much there is to it beyond the raw encoder: other vectors, BM25, feedback, memory."""
        return sum(
            (self.dense.kind != "raw", self.bm25 is not None, self.feedback is not None, self.memory is not None)
        )
