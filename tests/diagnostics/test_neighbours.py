from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ragcun_cache.diagnostics.neighbours import anti_hub_share, mean_overlap, occurrence_counts, skewness


def test_counts_and_what_is_read_off_them() -> None:
    counts_n = occurrence_counts([["a", "b"], ["a", "c"], ["a", "d"]], 6)
    assert sorted(counts_n.tolist()) == [0, 0, 1, 1, 1, 3]
    assert skewness(counts_n) == pytest.approx(stats.skew(counts_n))
    assert anti_hub_share(counts_n) == pytest.approx(2 / 6)


def test_no_lists_and_equal_counts_have_no_skewness() -> None:
    assert skewness(occurrence_counts([], 3)) is None
    assert skewness(occurrence_counts([["a", "b"]], 2)) is None


def test_one_hub_is_skewed_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    even = [[str(row) for row in rng.choice(100, 10, replace=False)] for _ in range(500)]
    hub = [["0", *(str(row) for row in rng.choice(99, 9, replace=False) + 1)] for _ in range(500)]
    assert abs(skewness(occurrence_counts(even, 100)) or 0) < 1
    assert (skewness(occurrence_counts(hub, 100)) or 0) > 5


def test_overlap() -> None:
    assert mean_overlap([["a", "b"], ["c", "d"]], [["b", "a"], ["d", "e"]]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="longer"):
        mean_overlap([["a"]], [["a"], ["b"]])
