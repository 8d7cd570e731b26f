from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.encoder.tokens import PackedTokens, Tokeniser, Tokens


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_encoder, local_files_only=True)


POISON = ["", " ", "\0", "a\0b" * 30, "🦜" * 40, "🦜 " * 40, "x" * 100_000, "x " * 50_000, "\ufffe\uffff", "a" * 14]


@pytest.mark.parametrize("fast", [True, False])
@given(texts=st.lists(st.text(max_size=60), max_size=6))
def test_ids_are_those_of_the_library_and_cut_texts_are_known(tokenizer, fast: bool, texts: list[str]) -> None:
    class Slow:
        is_fast = False
        eos_token_id, pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id

        def __call__(self, *args, **named):
            return tokenizer(*args, **named)

    texts = [*texts, *POISON[:6]]
    tokens = Tokeniser(tokenizer if fast else Slow(), 16)(texts)
    assert tokens.input_ids == tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    whole = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    assert tokens.truncated.tolist() == [len(ids) > 16 for ids in whole]


def test_poisoned_texts_are_cut_like_any_other(tokenizer) -> None:
    tokens = Tokeniser(tokenizer, 16)(POISON)
    assert tokens.input_ids == tokenizer(POISON, truncation=True, max_length=16)["input_ids"]
    assert tokens.n_tokens.max() == 16


@pytest.mark.parametrize(("eos", "expected"), [(None, "[PAD]"), ("[SEP]", "[SEP]")])
def test_a_text_of_no_tokens_is_one_that_ends_at_once(tokenizer, eos: str | None, expected: str) -> None:
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bare.post_processor = processors.Sequence([])  # As GPT-NeoX and BLOOM: no special tokens are added.
    special = {"pad_token": "[PAD]", **({"eos_token": eos} if eos else {})}
    tokens = Tokeniser(PreTrainedTokenizerFast(tokenizer_object=bare, **special), 16)(["", "a", " "])
    only = tokenizer.convert_tokens_to_ids(expected)
    assert tokens.input_ids == [[only], tokenizer.convert_tokens_to_ids(["a"]), [only]]
    assert tokens.n_tokens.tolist() == [1, 1, 1]


def test_the_librarys_tokenizer_is_left_as_it_was(tokenizer) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    Tokeniser(tokenizer, 16)(["a b c"])
    assert tokenizer.backend_tokenizer.to_str() == before


@given(st.lists(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=4), max_size=4))
def test_packed_tokens_are_the_same_tokens(pieces: list[list[list[int]]]) -> None:
    packed = PackedTokens.of(Tokens(ids, np.zeros(len(ids), bool)) for ids in pieces)
    rows = [ids for piece in pieces for ids in piece]
    assert [packed.row(row) for row in range(len(rows))] == rows
    assert packed.n_tokens.tolist() == [len(ids) for ids in rows]
    assert len(packed.truncated) == len(rows)
