"""Trained heads that a tuning tries beside everything else, and the judgements that they know."""

from __future__ import annotations

from collections.abc import Sequence

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.origin import origin_of
from ragcun_cache.errors import HeadError
from ragcun_cache.evaluation.candidates import describe_head, misfit, named_heads
from ragcun_cache.evaluation.system import TrainedOn
from ragcun_cache.heads.config import Input
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.similarity import Similarity


def tried_heads(names: Sequence[str], pair: CachePair, home: Home) -> list[HeadRecord]:
    """Return the heads that ``names`` stand for.

    Raises:
        EvaluationError: there is none of that name, or it does not fit the vectors.
        HeadError: it does not take unit vectors, or is not compared by cosine.

    """
    records = named_heads(names, home.heads)
    for record in records:
        if (problem := misfit(record, pair)) is not None:
            raise problem
        if record.config.similarity != Similarity.COSINE or record.config.input != Input.UNIT:
            raise HeadError(
                f"head {record.name} cannot be tuned with",
                expected="a head that takes unit vectors and is compared by cosine",
                found=f"input {record.config.input}, similarity {record.config.similarity}",
            )
    return records


def learnt_from(record: HeadRecord, home: Home) -> tuple[TrainedOn, ...]:
    """Return the splits that a head was trained or chosen by, a sample's and those that it was drawn from."""
    return describe_head(record, home).trained_on


def refuse_informed(
    records: Sequence[HeadRecord], collection: Collection, splits: Sequence[str] | None, home: Home
) -> None:
    """Raise if a head knows judgements of ``collection`` that would choose or test it.

    ``splits`` are those that must be new to it, beside the test split; None: all. A split of a sample may be part of
    any split of another, so on a sample a head that was trained on another one, or on the whole, knows them all.

    Raises:
        HeadError: one does.

    """
    forbidden = None if splits is None else tuple(dict.fromkeys([*splits, collection.test_split, "test"]))
    whole = origin_of(collection.name, home, collection.folder).whole
    for record in records:
        learnt = learnt_from(record, home)
        own = {one.split for one in learnt if one.collection == collection.name}
        if forbidden is not None and own:
            place, known = collection.name, own.intersection(forbidden)
        else:
            place, known = whole, {one.split for one in learnt if one.collection == whole}
        if known:
            raise HeadError(
                f"head {record.name} cannot be tuned with: it knows judgements that would choose or test it",
                where=record.folder,
                expected=f"a head that knows nothing of {_named(collection.name, forbidden)}",
                found=f"one that was trained or chosen by {_named(place, sorted(known))}",
                fix="leave it out",
            )


def _named(collection: str, splits: Sequence[str] | None) -> str:
    return f"any judgement of {collection}" if splits is None else ", ".join(f"{collection}/{one}" for one in splits)
