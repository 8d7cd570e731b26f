"""Pair samples: drawn the same every time, dev disjoint by query, made again only when the source changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ragcun_cache.collections import Collection, check_collection, find_collection, sample_pairs
from ragcun_cache.errors import CollectionError, ConfigError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


def ids(collection: Collection, role: Role) -> list[str]:
    return [one for batch in collection.texts(role) for one in batch.ids]


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def source(home: Home, tiny_collection: Callable[..., Path]) -> Collection:
    return find_collection(str(tiny_collection("src", splits={"train": 60, "dev": 20, "test": 10})), home)


def test_a_sample_holds_just_its_texts(home: Home, source: Collection) -> None:
    sample = sample_pairs(source, 25, 0, home)
    assert (sample.name, sample.sample_of, sample.folder) == (
        "src-pairs25-seed0",
        "src",
        home.collections / "src-pairs25-seed0",
    )
    train, dev = sample.pairs("train"), sample.pairs("dev")
    assert len(train) == len(set(train)) == 25
    assert set(train) <= set(source.pairs("train"))
    assert set(dev) == set(source.pairs("dev"))
    assert set(ids(sample, Role.QUERY)) == {query_id for query_id, _ in train + dev}
    assert set(ids(sample, Role.PASSAGE)) == {passage_id for _, passage_id in train + dev}
    assert check_collection(sample) == []
    assert find_collection(sample.name, home) == sample


def test_the_same_seed_gives_the_same_bytes_and_another_another(home: Home, tmp_path: Path, source: Collection) -> None:
    elsewhere = Home(tmp_path / "elsewhere")
    first = content(sample_pairs(source, 25, 3, home).folder)
    assert content(sample_pairs(source, 25, 3, elsewhere).folder) == first
    assert content(sample_pairs(source, 25, 4, home).folder)["qrels/train.tsv"] != first["qrels/train.tsv"]


def test_a_folder_of_the_same_name_that_somebody_else_made_is_left_alone(home: Home, source: Collection) -> None:
    own = Path(shutil.copytree(source.folder, home.collections / "src-pairs25-seed0"))
    before = content(own)
    with pytest.raises(CollectionError, match=r"no sample_of in a collection\.json[\s\S]*rename the folder"):
        sample_pairs(source, 25, 0, home)
    assert content(own) == before


def test_file_order_plays_no_part(home: Home, source: Collection) -> None:
    before = sample_pairs(source, 25, 0, home).pairs("train")
    path = source.folder / "qrels" / "train.tsv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert sample_pairs(source, 25, 0, home).pairs("train") == before


def test_a_smaller_sample_begins_a_larger_one(home: Home, source: Collection) -> None:
    assert sample_pairs(source, 10, 0, home).pairs("train") == sample_pairs(source, 40, 0, home).pairs("train")[:10]


def test_without_a_dev_split_it_is_cut_from_train_by_query(home: Home, source: Collection) -> None:
    (source.folder / "qrels" / "dev.tsv").unlink()
    rows = "".join(f"q{row}\tp{row + 60}\t1\n" for row in range(60))
    with (source.folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write(rows)
    sample = sample_pairs(source, 100, 0, home)
    dev_queries = {query_id for query_id, _ in sample.pairs("dev")}
    assert len(dev_queries) == 6
    assert len(sample.pairs("dev")) == 12
    assert dev_queries.isdisjoint(query_id for query_id, _ in sample.pairs("train"))


def test_ms_marco_dev_is_tested_on_so_dev_comes_from_train(home: Home, tiny_collection: Callable[..., Path]) -> None:
    tiny_collection("msmarco", splits={"train": 60, "dev": 20})
    source = find_collection("msmarco", home)
    sample = sample_pairs(source, 20, 0, home)
    assert sample.sample_of == "msmarco"
    assert set(sample.pairs("dev")) < set(source.pairs("train"))
    assert {one for one, _ in sample.pairs("dev")}.isdisjoint(one for one, _ in sample.pairs("train"))
    assert set(ids(sample, Role.QUERY)).isdisjoint(source.qrels("dev"))


def test_pairs_that_point_nowhere_are_not_drawn(home: Home, source: Collection) -> None:
    with (source.folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write("q0\tgone\t1\nlost\tp0\t1\n")
    pairs = sample_pairs(source, 60, 0, home).pairs("train")
    assert len(pairs) == 60
    assert not {("q0", "gone"), ("lost", "p0")}.intersection(pairs)


def test_a_sample_of_a_sample_has_a_name_of_its_own(home: Home, source: Collection) -> None:
    once = sample_pairs(source, 20, 0, home)
    twice = sample_pairs(once, 20, 0, home)
    assert (twice.name, twice.sample_of) == (f"{once.name}-pairs20-seed0", once.name)


def test_grades_are_kept(home: Home, source: Collection) -> None:
    path = source.folder / "qrels" / "train.tsv"
    path.write_text(path.read_text().replace("q7\tp7\t1", "q7\tp7\t3").replace("q8\tp8\t1", "q8\tp8\t0"))
    qrels = sample_pairs(source, 59, 0, home).qrels("train")
    assert qrels["q7"] == {"p7": 3}
    assert "q8" not in qrels


@pytest.mark.parametrize("n_pairs", [0, -1, 61])
def test_more_than_there_are_says_how_many_there_are(home: Home, source: Collection, n_pairs: int) -> None:
    with pytest.raises(ConfigError, match="cannot draw") as error:
        sample_pairs(source, n_pairs, 0, home)
    assert str(error.value.expected).startswith("1 to 60 ")
    assert not (home.collections / f"src-pairs{n_pairs}-seed0").exists()


def test_without_a_train_split_the_error_says_so(home: Home, source: Collection) -> None:
    (source.folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(CollectionError, match="no train split") as error:
        sample_pairs(source, 5, 0, home)
    assert error.value.found == "dev, test"


def test_a_sample_is_made_once_and_again_when_the_source_changes(home: Home, source: Collection) -> None:
    folder = sample_pairs(source, 25, 0, home).folder
    made = folder.stat().st_ino
    assert sample_pairs(source, 25, 0, home).folder.stat().st_ino == made

    corpus = source.folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("title ", "headline "))
    again = sample_pairs(source, 25, 0, home)
    assert again.folder.stat().st_ino != made
    assert next(again.texts(Role.PASSAGE)).titles[0].startswith("headline ")
    assert [path.name for path in home.collections.iterdir() if path.name.endswith((".partial", ".old"))] == []


def test_a_failed_rebuild_leaves_the_old_sample(home: Home, source: Collection) -> None:
    before = content(sample_pairs(source, 25, 0, home).folder)
    corpus = source.folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + "not json\n")
    with pytest.raises(CollectionError, match="not JSON"):
        sample_pairs(source, 25, 0, home)
    assert content(home.collections / "src-pairs25-seed0") == before


def test_real_pairs(real_data: Callable[[str], Path], home: Home) -> None:
    # A copy, because the hashes of the content are kept beside the files.
    source = find_collection(str(shutil.copytree(real_data("msmarco-12k"), home.root / "msmarco-12k")), home)
    sample = sample_pairs(source, 10_000, 0, home)
    assert len(sample.pairs("train")) == 10_000
    assert len({one for one, _ in sample.pairs("dev")}) == 500
    assert check_collection(sample) == []
