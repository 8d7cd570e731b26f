from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.encoder.batches import plan_batches


@given(st.lists(st.integers(1, 400), max_size=200), st.integers(1, 4000))
def test_every_row_is_in_one_batch_and_no_batch_costs_more_than_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= budget


def test_rows_of_like_length_share_a_batch() -> None:
    assert plan_batches([2, 9, 2, 9], 18) == [[1, 3], [0, 2]]
