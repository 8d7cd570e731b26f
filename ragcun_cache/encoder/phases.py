"""Where the time of an encode goes, and how much of it is spent on padding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Phases:
    """Seconds of each phase, summed over all workers. Phases overlap, so together they may take longer than the encode.

    Attributes:
        read: reading records, hashing their texts, looking for vectors that other caches hold.
        load: loading the model.
        tokenise: texts → token ids.
        forward: padding and the model itself, tokens → vectors.
        write: rounding, hashing and writing shards until they are durable.
        tokens: that went through the model, padding not counted.
        padded_tokens: the same with padding.
    """

    read: float = 0.0
    load: float = 0.0
    tokenise: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0

    def __add__(self, other: Phases) -> Phases:
        return Phases(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def pad_share(self) -> float:
        """Pad tokens / all tokens that went through the model; 0 if none did."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the pad share as plain values, seconds to the millisecond."""
        values = {name: round(value, 3) for name, value in asdict(self).items()}
        return {**values, "pad_share": round(self.pad_share, 5)}


NOTHING_DONE = Phases()
