"""The published collections: all of BEIR, MS MARCO among them, as their authors distribute them.

Checksums are those of the dataset table of https://github.com/beir-cellar/beir; sizes are those of Thakur et al. 2021,
"BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models", table 1, in full digits as
https://ir-datasets.com/beir.html counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.errors import CollectionError, ConfigError

_BEIR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
_ACADEMIC = "non-commercial, academic use only"
_SEE_HOMEPAGE = "set by its owners: see the dataset table of https://github.com/beir-cellar/beir"


@dataclass(frozen=True)
class Archive:
    """A zip archive to download, and the md5 its publisher gives for it."""

    url: str
    md5: str


@dataclass(frozen=True)
class Published:
    """What is known of a published collection before it is on disk.

    ``passages`` and ``test_queries`` are the published sizes (queries judged in ``test_split``). ``archive`` is None
    where the publisher may not distribute the texts. ``in_base_training`` marks collections whose source was among the
    training data of all-mpnet-base-v2, by its model card, and of the other ``all-*`` models of sentence-transformers:
    a score of theirs on them is not zero-shot.
    """

    name: str
    passages: int
    test_queries: int
    archive: Archive | None
    test_split: str = "test"
    ignore_identical_ids: bool = True
    in_base_training: bool = False
    licence: str = _SEE_HOMEPAGE


def _beir(name: str, md5: str) -> Archive:
    return Archive(f"{_BEIR}/{name}.zip", md5)


_CQADUPSTACK = _beir("cqadupstack", "4e41456d7df8ee7760a7f866133bda78")

_PUBLISHED = (
    Published(
        "msmarco",
        8_841_823,
        6_980,
        _beir("msmarco", "444067daf65d982533ea17ebd59501e4"),
        # "test" holds the 43 queries of TREC DL 2019; what is reported as BEIR's MS MARCO is "dev".
        test_split="dev",
        in_base_training=True,
        licence=_ACADEMIC,
    ),
    Published("trec-covid", 171_332, 50, _beir("trec-covid", "ce62140cb23feb9becf6270d0d1fe6d1")),
    Published("nfcorpus", 3_633, 323, _beir("nfcorpus", "a89dba18a62ef92f7d323ec890a0d38d"), licence=_ACADEMIC),
    Published("nq", 2_681_468, 3_452, _beir("nq", "d4d3d2e48787a744b6f6e691ff534307"), in_base_training=True),
    Published("hotpotqa", 5_233_329, 7_405, _beir("hotpotqa", "f412724f78b0d91183a0e86805e16114")),
    Published("fiqa", 57_638, 648, _beir("fiqa", "17918ed23cd04fb15047f73e6c3bd9d9")),
    Published("arguana", 8_674, 1_406, _beir("arguana", "8ad3e3c2a5867cdced806d6503f29b99")),
    Published("webis-touche2020", 382_545, 49, _beir("webis-touche2020", "46f650ba5a527fc69e0a6521c5a23563")),
    Published(
        "quora",
        522_931,
        10_000,
        _beir("quora", "18fb154900ba42a600f84b839c173167"),
        in_base_training=True,
    ),
    Published("dbpedia-entity", 4_635_922, 400, _beir("dbpedia-entity", "c2a39eb420a3164af735795df012ac2c")),
    Published("scidocs", 25_657, 1_000, _beir("scidocs", "38121350fc3a4d2f48850f6aff52e4a9")),
    Published("fever", 5_416_568, 6_666, _beir("fever", "5a818580227bfb4b35bb6fa46d9b6c03")),
    Published("climate-fever", 5_416_593, 1_535, _beir("climate-fever", "8b66f0a9126c521bae2bde127b4dc99d")),
    Published("scifact", 5_183, 300, _beir("scifact", "5f7d1de60b170fc8027bb7898e2efca1")),
    Published("bioasq", 14_914_602, 500, None),
    Published("signal1m", 2_866_316, 97, None),
    Published("trec-news", 594_977, 57, None),
    Published("robust04", 528_155, 249, None),
    *(
        # One archive holds the twelve; all come from StackExchange, which the base model was trained on.
        Published(f"cqadupstack/{forum}", passages, queries, _CQADUPSTACK, in_base_training=True)
        for forum, passages, queries in (
            ("android", 22_998, 699),
            ("english", 40_221, 1_570),
            ("gaming", 45_301, 1_595),
            ("gis", 37_637, 885),
            ("mathematica", 16_705, 804),
            ("physics", 38_316, 1_039),
            ("programmers", 32_176, 876),
            ("stats", 42_269, 652),
            ("tex", 68_184, 2_906),
            ("unix", 47_382, 1_072),
            ("webmasters", 17_405, 506),
            ("wordpress", 48_605, 541),
        )
    ),
)

REGISTRY: dict[str, Published] = {one.name: one for one in _PUBLISHED}


def test_split_of(name: str) -> str:
    """Return the split that figures on the collection are published on: ``test`` of one that is not registered."""
    return REGISTRY[name].test_split if name in REGISTRY else "test"


GROUPS: dict[str, tuple[str, ...]] = {
    "cqadupstack": tuple(name for name in REGISTRY if name.startswith("cqadupstack/")),
}
"""Names that stand for several collections; the group's score is the mean over them (BEIR's rule for CQADupStack)."""


def members(name: str) -> tuple[str, ...]:
    """Return the collections that a name stands for: those of the group, or the name itself."""
    return GROUPS.get(name, (name,))


def each_name(given: Iterable[str]) -> list[str]:
    """Return every collection that names, which commas may divide, stand for: each once, in that order.

    Raises:
        ConfigError: there is no name in it.
    """
    given = list(given)
    names = (name.strip() for one in given for name in ([one] if Path(one).is_dir() else one.split(",")))
    found = list(dict.fromkeys(member for name in names if name for member in members(name)))
    if not found:
        raise ConfigError(
            "no collection is named", expected="names or folders, divided by commas", found=" ".join(given)
        )
    return found


def archive_of(name: str) -> Archive:
    """Return the archive of a registered collection.

    Raises:
        CollectionError: its texts may not be distributed, so there is none.
    """
    archive = REGISTRY[name].archive
    if archive is None:
        raise CollectionError(
            f"the texts of {name!r} are not distributed by BEIR",
            fix=f"obtain them as https://github.com/beir-cellar/beir/tree/main/examples/dataset says, put them in BEIR "
            f"layout into a folder {name!r}, and name its parent in RAGCUN_COLLECTIONS",
        )
    return archive
