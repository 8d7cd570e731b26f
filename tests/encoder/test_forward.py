from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.encoder.backend import OutOfMemory
from ragcun_cache.encoder.blocks import Block
from ragcun_cache.encoder.forward import RowError, forward, tokenise_pieces
from ragcun_cache.encoder.tokens import PackedTokens, Tokens
from ragcun_cache.role import Role

LIMIT = 16


class SmallDevice:
    """A backend that holds ``room`` tokens; a vector says how long its text was. 99 is a text that is not a number."""

    dim = 2

    def __init__(self, room: int, batch_tokens: int = 64) -> None:
        self.room, self.batch_tokens = room, batch_tokens
        self.asked: list[int] = []

    def tokenise(self, texts: list[str]) -> Tokens:
        return Tokens([[len(text)] * len(text) for text in texts], np.zeros(len(texts), bool))

    def embed(self, input_ids: list[list[int]], length: int):
        self.asked.append(len(input_ids) * length)
        if self.asked[-1] > self.room:
            raise OutOfMemory
        count_b = np.array([len(ids) for ids in input_ids], np.float32)
        vectors_bd = np.stack([count_b, np.ones_like(count_b)], axis=1)
        vectors_bd[[ids[0] == 13 for ids in input_ids]] = np.nan
        return vectors_bd, count_b


def encode(device: SmallDevice, lengths: list[int]):
    tokens = PackedTokens.of(tokenise_pieces(["x" * length for length in lengths], device))
    return forward(tokens, device, LIMIT, "float32", lambda amount, **extra: None)


@given(st.lists(st.integers(1, LIMIT).filter(lambda n: n != 13), min_size=1, max_size=60), st.integers(LIMIT, 70))
def test_batches_that_do_not_fit_are_halved_and_every_row_gets_its_vector(lengths: list[int], room: int) -> None:
    device = SmallDevice(room)
    encoded = encode(device, lengths)
    assert encoded.vectors_nd[:, 0].tolist() == lengths
    assert encoded.norms.tolist() == lengths
    assert encoded.phases.tokens == sum(lengths)
    assert encoded.phases.padded_tokens == sum(size for size in device.asked if size <= room)
    assert device.batch_tokens >= LIMIT


def test_the_budget_stays_halved() -> None:
    device = SmallDevice(room=20)
    encode(device, [8] * 40)
    assert device.batch_tokens == 16
    device.asked.clear()
    encode(device, [8] * 40)
    assert max(device.asked) <= 16


def test_a_budget_below_one_long_text_is_never_raised() -> None:
    device = SmallDevice(room=7, batch_tokens=12)
    encode(device, [4] * 9)
    assert device.batch_tokens == 12
    assert encode(device, [4] * 9).vectors_nd[:, 0].tolist() == [4] * 9


def block_of(lengths: list[int]) -> Block:
    strings = ["x" * length for length in lengths]
    return Block(0, Role.PASSAGE, [f"p{row}" for row in range(len(lengths))], [b""] * len(lengths), None, strings)


def test_a_text_that_does_not_fit_alone_is_named() -> None:
    with pytest.raises(RowError) as caught:
        encode(SmallDevice(room=10), [3, 3, 12, 3])
    error = block_of([3, 3, 12, 3]).error(caught.value)
    assert "passage 'p2'" in str(error)
    assert "12 tokens" in str(error)
    assert "--max-seq-length" in str(error)


def test_a_vector_that_is_not_finite_is_named() -> None:
    with pytest.raises(RowError) as caught:
        encode(SmallDevice(room=1000), [3, 13, 4])
    error = str(block_of([3, 13, 4]).error(caught.value))
    assert "passage 'p1'" in error
    assert "--backend torch --precision fp32" in error
