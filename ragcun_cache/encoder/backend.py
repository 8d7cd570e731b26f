"""What the encode asks of whatever runs the model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.tokens import Tokens


class OutOfMemory(Exception):
    """A batch does not fit in the device's memory; a smaller one may."""


class Backend(Protocol):
    """A frozen encoder, loaded."""

    dim: int
    """Dimensions of a vector."""
    batch_tokens: int
    """Padded tokens that suit one forward pass on this device."""

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the token ids of each text."""

    def embed(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pad to ``length``; return (b, dim) float32 unit vectors and (b,) float32 norms from before normalisation.

        Raises:
            OutOfMemory: the batch does not fit; the encode then asks for smaller ones.
        """
