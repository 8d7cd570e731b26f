"""A sample of training pairs, cut out of a collection as a small collection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cache.collections.check import absent_ids
from ragcun_cache.collections.collection import Collection, check_replaceable, open_collection, read_record
from ragcun_cache.collections.flaws import Flaws
from ragcun_cache.collections.layout import RECORD_FILE, is_collection, lock, new_folder, write_qrels, write_texts
from ragcun_cache.collections.origin import sample_name
from ragcun_cache.collections.qrels import Qrels
from ragcun_cache.collections.reader import Texts
from ragcun_cache.errors import CollectionError, ConfigError
from ragcun_cache.files import sha256_file, write_json
from ragcun_cache.home import Home
from ragcun_cache.role import Role

TRAIN, DEV = "train", "dev"
_MAX_DEV_QUERIES = 500
_DEV_SHARE = 10

Pair = tuple[str, str]


def _sources(collection: Collection) -> dict[str, str]:
    """Return what the sample is made from: source file -> sha256."""
    splits = [TRAIN] + ([DEV] if collection.dev_split else [])
    return {role.value: collection.content_sha256(role) for role in Role} | {
        f"qrels/{split}": sha256_file(collection.qrels_path(split)) for split in splits
    }


def _existing_pairs(collection: Collection, split: str) -> list[Pair]:
    """Return the split's relevant pairs whose texts both exist, sorted, so that file order plays no part."""
    pairs = collection.pairs(split)
    no_query = absent_ids(collection, Role.QUERY, (query_id for query_id, _ in pairs), Flaws())
    no_passage = absent_ids(collection, Role.PASSAGE, (passage_id for _, passage_id in pairs), Flaws())
    return sorted(pair for pair in pairs if pair[0] not in no_query and pair[1] not in no_passage)


def _draw(collection: Collection, n_pairs: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (train pairs, dev pairs), disjoint by query.

    The dev queries do not depend on ``n_pairs``, and a smaller sample of the same seed begins a larger one.
    """
    rng = np.random.default_rng(seed)
    train = _existing_pairs(collection, TRAIN)
    train_queries = sorted({query_id for query_id, _ in train})
    if collection.dev_split:
        dev = _existing_pairs(collection, collection.dev_split)
        candidates = sorted({query_id for query_id, _ in dev} - set(train_queries))
        n_dev = min(_MAX_DEV_QUERIES, len(candidates))
    else:
        dev, candidates = train, train_queries
        n_dev = min(_MAX_DEV_QUERIES, len(candidates) // _DEV_SHARE)
    dev_queries = {candidates[int(place)] for place in rng.permutation(len(candidates))[:n_dev]}
    available = [pair for pair in train if pair[0] not in dev_queries]
    if not 1 <= n_pairs <= len(available):
        raise ConfigError(
            f"cannot draw {n_pairs:,} train pairs from {collection.name!r}",
            where=collection.qrels_path(TRAIN),
            expected=f"1 to {len(available):,} (what is left beside {n_dev:,} dev queries)",
            found=n_pairs,
        )
    drawn = [available[int(place)] for place in rng.permutation(len(available))[:n_pairs]]
    return drawn, [pair for pair in dev if pair[0] in dev_queries]


def _only(batches: Iterator[Texts], wanted: set[str]) -> Iterator[Texts]:
    for batch in batches:
        rows = [row for row in zip(batch.ids, batch.titles, batch.texts, strict=True) if row[0] in wanted]
        yield Texts([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _graded(pairs: list[Pair], qrels: Qrels) -> list[tuple[str, str, int]]:
    return [(query_id, passage_id, qrels[query_id][passage_id]) for query_id, passage_id in pairs]


def _write(partial: Path, collection: Collection, n_pairs: int, seed: int, record: dict[str, Any]) -> None:
    train, dev = _draw(collection, n_pairs, seed)
    pairs = train + dev
    for role, wanted in (
        (Role.QUERY, {query_id for query_id, _ in pairs}),
        (Role.PASSAGE, {passage_id for _, passage_id in pairs}),
    ):
        write_texts(partial, role, _only(collection.texts(role), wanted))
    write_qrels(partial, TRAIN, _graded(train, collection.qrels(TRAIN)))
    write_qrels(partial, DEV, _graded(dev, collection.qrels(collection.dev_split or TRAIN)))
    write_json(partial / RECORD_FILE, record)


def sample_pairs(collection: Collection, n_pairs: int, seed: int, home: Home) -> Collection:
    """Return ``<name>-pairs<n>-seed<seed>``: ``n_pairs`` train pairs and up to 500 dev queries, with just their texts.

    Dev queries come from the collection's dev split; where it has none, or is tested on it (MS MARCO), they are cut
    from train (a tenth of its queries at most). No dev query is a train query. The sample is written below
    ``home.collections`` once, and again only if the files it was drawn from have changed.

    Raises:
        ConfigError: fewer pairs than asked for; the error says how many there are.
        CollectionError: no train split, a collection that cannot be read, or something else that has that name.
    """
    if TRAIN not in collection.splits():
        raise CollectionError(
            f"collection {collection.name!r} has no train split to draw pairs from",
            where=collection.folder / "qrels",
            expected=f"{TRAIN}.tsv",
            found=", ".join(collection.splits()) or "no qrels",
        )
    name = sample_name(collection.name, n_pairs, seed)
    folder = home.collections / name
    record = {"sample_of": collection.name, "pairs": n_pairs, "seed": seed, "sources": _sources(collection)}
    with lock(folder):
        if not (is_collection(folder) and read_record(folder) == record):
            check_replaceable(folder, record, "sample_of")
            with new_folder(folder) as partial:
                _write(partial, collection, n_pairs, seed, record)
    return open_collection(folder, name)
