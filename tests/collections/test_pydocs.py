"""The built-in collection of docstrings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cache.collections import Collection, check_collection, find_collection, pydocs
from ragcun_cache.home import Home
from ragcun_cache.role import Role

SPLITS = ("dev", "test", "train")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return find_collection("pydocs", Home(tmp_path_factory.mktemp("pydocs")))


def rows(collection: Collection, role: Role) -> dict[str, str]:
    return {
        one_id: text for batch in collection.texts(role) for one_id, text in zip(batch.ids, batch.texts, strict=True)
    }


def test_size_and_splits(made: Collection) -> None:
    assert made.splits() == SPLITS
    passages = rows(made, Role.PASSAGE)
    assert 2000 <= len(passages) <= 3000
    assert sum(len(made.pairs(split)) for split in SPLITS) == len(passages) == len(rows(made, Role.QUERY))
    assert all(len(made.pairs(split)) >= 100 for split in SPLITS)
    assert len(made.pairs("train")) > len(passages) / 2
    assert check_collection(made) == []


def test_no_module_is_in_two_splits(made: Collection) -> None:
    modules = {
        split: {".".join(query_id[2:].partition(":")[0].split(".")[:2]) for query_id, _ in made.pairs(split)}
        for split in SPLITS
    }
    assert all(len(found) >= 10 for found in modules.values())
    assert modules["train"].isdisjoint(modules["dev"] | modules["test"])
    assert modules["dev"].isdisjoint(modules["test"])


def test_no_passage_gives_its_query_away(made: Collection) -> None:
    queries, passages = rows(made, Role.QUERY), rows(made, Role.PASSAGE)
    for split in SPLITS:
        for query_id, passage_id in made.pairs(split):
            assert queries[query_id].rstrip(".").casefold() not in passages[passage_id].casefold()
    assert all(title == "" for batch in made.texts(Role.PASSAGE) for title in batch.titles)


def test_nothing_is_there_twice_or_too_short(made: Collection) -> None:
    for role, fewest_words in ((Role.QUERY, 4), (Role.PASSAGE, 12)):
        texts = list(rows(made, role).values())
        assert len({text.casefold() for text in texts}) == len(texts)
        assert min(len(text.split()) for text in texts) >= fewest_words
        assert max(len(text.split()) for text in texts) <= 50


def test_query_and_passage_ids_differ(made: Collection) -> None:
    # BEIR's rule drops a passage with the query's id: equal ids would drop every answer.
    assert rows(made, Role.QUERY).keys().isdisjoint(rows(made, Role.PASSAGE))


def test_the_same_versions_give_the_same_bytes(made: Collection, home: Home) -> None:
    again = find_collection("pydocs", home)
    for name in ("corpus.jsonl", "queries.jsonl", *(f"qrels/{split}.tsv" for split in SPLITS), "collection.json"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()


def test_what_is_made_is_left_as_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home.collections / "pydocs"
    folder.mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / name).write_text("")
    monkeypatch.setattr(pydocs, "_chosen_pairs", lambda: pytest.fail("made again"))
    assert pydocs.make_pydocs(home) == folder


MODULE = '''
"""Tools for reading small files.

They read every file in one go, close it at once, and never keep a handle around.
"""

raise RuntimeError("this module must never be imported")

def short():
    """Too short."""

def repeats():
    """Return the number of lines.

    To return the number of lines, the file is read once from its beginning to its end.
    """

def count_lines(path):
    """Return how many lines
    a file has.

    >>> count_lines("x")
    3

    Parameters
    ----------
    path : str
        A file that may be read, of any size, in any encoding that has line ends.
    """

def _private():
    """A private function with a summary.

    And with a rest that is quite long enough to be taken, were it not for the name.
    """
'''


def test_what_is_taken_of_a_module(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    taken = {pair.name: (pair.summary, pair.rest) for pair in pydocs._module_pairs(path, "module")}
    assert taken == {
        "module:": (
            "Tools for reading small files.",
            "They read every file in one go, close it at once, and never keep a handle around.",
        ),
        "module:count_lines": (
            "Return how many lines a file has.",
            "Parameters path : str A file that may be read, of any size, in any encoding that has line ends.",
        ),
    }


def test_a_file_that_does_not_parse_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "template.py"
    path.write_bytes(b"def {{ name }}(): \x00")
    assert list(pydocs._module_pairs(path, "template")) == []


def test_long_passages_end_with_a_sentence() -> None:
    sentence = "This is a sentence of eight words only."
    assert pydocs._shorten(" ".join([sentence] * 10)) == " ".join([sentence] * 6)
    assert len(pydocs._shorten("word " * 80).split()) == 50
