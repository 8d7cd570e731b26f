"""A whole collection read once, to find what is wrong with it before anything is encoded."""

from __future__ import annotations

from collections.abc import Iterable

from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.flaws import Flaw, Flaws
from ragcun_cache.collections.qrels import read_judgements, read_qrels
from ragcun_cache.collections.reader import read_texts
from ragcun_cache.role import Role

_BATCH_ROWS = 8192


def absent_ids(collection: Collection, role: Role, wanted: Iterable[str], flaws: Flaws) -> set[str]:
    """Return those of the wanted ids that the role's file does not have; flaws of the file are noted on the way.

    Raises:
        CollectionError: as :func:`ragcun_cache.collections.reader.read_texts`.
    """
    absent = set(wanted)
    for batch in read_texts(collection.path(role), _BATCH_ROWS, flaws):
        absent.difference_update(batch.ids)
    return absent


def check_collection(collection: Collection) -> list[Flaw]:
    """Read passages, queries and every qrels file; return the counted flaws that do not stop the work.

    A judgement of a query or passage that does not exist stays in the ideal ranking (as in trec_eval): it is counted.

    Raises:
        CollectionError: the first thing that does stop the work, with file and line.
    """
    flaws = Flaws()
    splits = {split: read_qrels(collection.qrels_path(split), flaws) for split in collection.splits()}
    judged_queries = {query_id for qrels in splits.values() for query_id in qrels}
    judged_passages = {passage_id for qrels in splits.values() for grades in qrels.values() for passage_id in grades}
    absent_queries = absent_ids(collection, Role.QUERY, judged_queries, flaws)
    absent_passages = absent_ids(collection, Role.PASSAGE, judged_passages, flaws)
    if absent_queries or absent_passages:
        for split in splits:
            path = collection.qrels_path(split)
            for judgement in read_judgements(path, Flaws()):
                if judgement.query_id in absent_queries:
                    flaws.note("judged query does not exist", path, judgement.line)
                if judgement.passage_id in absent_passages:
                    flaws.note("judged passage does not exist", path, judgement.line)
    return flaws.all()
