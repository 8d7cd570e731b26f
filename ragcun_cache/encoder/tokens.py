"""Texts as the encoder reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Token ids of some texts, in their order.

    Attributes:
        input_ids: ids of each text, special tokens included, without padding.
        truncated: (rows,) bool, whether the text was longer than the encoder reads.
    """

    input_ids: list[list[int]]
    truncated: NDArray[np.bool_]

    @property
    def n_tokens(self) -> NDArray[np.int32]:
        """(rows,) int32 number of tokens of each text."""
        return np.fromiter((len(ids) for ids in self.input_ids), np.int32, len(self.input_ids))
