"""Texts as the encoder reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class PackedTokens:
    """The same in 4 bytes a token (a Python list takes ten times that), for as many texts as a shard has.

    Attributes:
        flat: (tokens,) int32, the ids of one text after the other.
        starts: (rows + 1,) int64, where each text begins in ``flat``, and where the last one ends.
        truncated: (rows,) bool.
    """

    flat: NDArray[np.int32]
    starts: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: Iterable[Tokens]) -> PackedTokens:
        """Join the tokens of consecutive pieces."""
        flat, counts, truncated = [np.empty(0, np.int32)], [np.zeros(1, np.int64)], [np.empty(0, bool)]
        for piece in pieces:
            flat += [np.asarray(ids, np.int32) for ids in piece.input_ids]
            counts.append(piece.n_tokens.astype(np.int64))
            truncated.append(piece.truncated)
        return cls(np.concatenate(flat), np.cumsum(np.concatenate(counts)), np.concatenate(truncated))

    @property
    def n_tokens(self) -> NDArray[np.int32]:
        """(rows,) int32 number of tokens of each text."""
        return np.diff(self.starts).astype(np.int32)

    def row(self, row: int) -> list[int]:
        """Return the ids of one text."""
        ids: list[int] = self.flat[self.starts[row] : self.starts[row + 1]].tolist()
        return ids


class Tokeniser:
    """A model's tokenizer, cut to a number of tokens; every text is read once."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        """Take a tokenizer of the transformers library, and the most tokens that a text may have."""
        self._tokenizer, self._limit = tokenizer, limit
        ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
        self._blank = [one for one in ends if one is not None][:1]
        self._rust: Any = None
        if tokenizer.is_fast:
            # A copy of its own: the library sets truncation anew in every call, which another thread would run into.
            rust = tokenizer.backend_tokenizer
            self._rust = type(rust).from_str(rust.to_str())
            self._rust.no_padding()
            self._rust.enable_truncation(limit, direction=tokenizer.truncation_side)

    def __call__(self, texts: list[str]) -> Tokens:
        """Return the ids that ``tokenizer(texts, truncation=True, max_length=limit)`` gives, and which were cut.

        A model cannot read a text of no tokens ("" where no special ones are added): such a text is the token that ends
        a text, or pads it.
        """
        input_ids, truncated = self._ids(texts)
        return Tokens([ids or self._blank for ids in input_ids], truncated)

    def _ids(self, texts: list[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        if self._rust is not None:
            found = self._rust.encode_batch_fast(texts)
            truncated = np.fromiter((bool(one.overflowing) for one in found), bool, len(found))
            return [one.ids for one in found], truncated
        whole: list[list[int]] = self._tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        truncated = np.fromiter((len(ids) > self._limit for ids in whole), bool, len(whole))
        if rows := np.flatnonzero(truncated).tolist():
            cut = self._tokenizer([texts[row] for row in rows], truncation=True, max_length=self._limit)["input_ids"]
            for row, ids in zip(rows, cut, strict=True):
                whole[row] = ids
        return whole, truncated
