"""What is known of a collection by whoever knows the judgements of a sample of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ragcun_cache.collections.collection import open_collection
from ragcun_cache.collections.origin import judged_places, sample_name
from ragcun_cache.collections.sample import sample_pairs
from ragcun_cache.home import Home


@pytest.mark.parametrize(
    ("name", "splits", "dev_is_from"),
    [
        ("whole", {"train": 40, "dev": 15, "test": 15}, "dev"),
        ("whole", {"train": 40, "test": 15}, "train"),
        ("msmarco", {"train": 40, "dev": 15}, "train"),
    ],
)
def test_the_judgements_of_a_sample_are_those_that_they_were_drawn_from(
    home: Home, tiny_collection: Callable[..., Path], name: str, splits: dict[str, int], dev_is_from: str
) -> None:
    whole = open_collection(tiny_collection(name, splits=splits), name)
    sample = sample_pairs(whole, 20, 3, home)
    assert sample.name == sample_name(name, 20, 3)
    assert set(sample.qrels("dev")) <= set(whole.qrels(dev_is_from))
    assert judged_places(sample.name, ["dev"], home) == [(sample.name, "dev"), (name, dev_is_from)]
    assert judged_places(sample.name, ["train"], home) == [(sample.name, "train"), (name, "train")]
    assert judged_places(name, ["train", "dev"], home) == [(name, "train"), (name, "dev")]


def test_of_a_sample_whose_whole_is_gone_its_name_still_tells(home: Home) -> None:
    places = judged_places("gone-pairs20-seed3", ["train"], home)
    assert places == [("gone-pairs20-seed3", "train"), ("gone", "train")]
