from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.encoder.batches import Batch, padded_length, plan_batches


@given(st.lists(st.integers(1, 384), max_size=200), st.integers(1, 4000))
def test_every_row_is_in_one_batch_and_no_batch_costs_more_than_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget, 384)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch.rows) == 1 or batch.length * len(batch.rows) <= budget
        assert all(padded_length(lengths[row], 384) == batch.length for row in batch.rows)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_padding_is_at_most_a_sixteenth_and_63_tokens_and_never_above_the_limit(n_tokens: int, limit: int) -> None:
    length = padded_length(n_tokens, limit)
    assert n_tokens <= length <= n_tokens * 17 / 16
    assert length <= max(n_tokens, limit)
    assert length - n_tokens < 64


def test_rows_of_like_length_share_a_batch() -> None:
    assert plan_batches([2, 9, 2, 9], 18, 16) == [Batch([1, 3], 9), Batch([0, 2], 2)]
