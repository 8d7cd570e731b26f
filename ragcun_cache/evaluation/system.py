"""What is evaluated: a system turns queries into ranked passages, and says what it was made with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ragcun_cache.files import sha256_json
from ragcun_cache.similarity import Similarity

Route = Literal["zero-shot", "in-domain"]
"""Whether judgements of the collection that is tested on had a part in it: never, or some of another split."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainedOn(_Frozen):
    """A split whose judgements a system was trained or chosen by. What a sample's were drawn from is one more."""

    collection: str
    split: str


class System(_Frozen):
    """What a result says of the system: a head, the raw encoder, BM25, a fusion of several.

    ``sha256`` covers whatever its rankings depend on, such as weights. ``settings`` is all that it was made with but
    its seed: systems with equal settings are seeds of one row, if they are of one ``code``, the version of what trained
    them (None where that is not known). The code is no part of a result's key: what it makes has the figures that
    equal weights have. ``out_dim`` and ``similarity`` are those of its vectors, None where it has none. ``trained_on``
    decides the route of a result; ``route`` says it where no split does, as for a fusion whose weight was fixed in
    advance.
    """

    name: str
    sha256: str
    arch: str
    init: str | None = None
    out_dim: int | None = None
    seed: int | None = None
    similarity: Similarity | None = None
    settings: dict[str, Any] = {}
    code: str | None = None
    trained_on: tuple[TrainedOn, ...] = ()
    route: Route | None = None

    @property
    def is_raw(self) -> bool:
        """Whether this is the raw encoder, which every table has in its first row."""
        return self.arch == "identity"

    @property
    def label(self) -> str:
        """Short name that its seeds share."""
        dim = f"{self.out_dim}d" if self.out_dim else None
        return "raw encoder" if self.is_raw else " ".join(filter(None, (self.arch, self.init, dim)))

    @property
    def group(self) -> str:
        """Hash of everything but name, weights, seed and code."""
        return sha256_json(self.model_dump(mode="json", exclude={"name", "sha256", "seed", "code"}))


class Cost(_Frozen):
    """What a system takes beyond the cached vectors; None where it is not known.

    ``seconds`` to train or choose it, ``parameters`` that it has, ``bytes`` that it keeps on disk, and whether
    every passage vector must be computed and indexed again for it.
    """

    seconds: float | None = None
    parameters: int | None = None
    bytes: int | None = None
    index_rebuilt: bool | None = None


def raw_head(dim: int) -> System:
    """Return the record of the raw encoder of ``dim`` dimensions, scored by cosine."""
    return System(
        name="identity",
        sha256=sha256_json({"arch": "identity", "dim": dim, "similarity": Similarity.COSINE}),
        arch="identity",
        out_dim=dim,
        similarity=Similarity.COSINE,
    )
