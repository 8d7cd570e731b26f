from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import list_caches
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.origin import encoders, made, training
from ragcun_cache.evaluation.render import provenance_markdown
from ragcun_cache.evaluation.results import Result, Setting
from ragcun_cache.evaluation.system import System, TrainedOn, raw_head
from ragcun_cache.heads.config import Arch, HeadConfig
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import RECORD_NAME, save_head
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity


def result(system: System, *, encoder: str = "e") -> Result:
    setting = Setting(
        collection="a", sample_of=None, split="test", encoder=encoder, model="mpnet", query_fingerprint="q",
        query_content_sha256="c", passage_fingerprint="p", passage_content_sha256="c", qrels_sha256="r",
        config=EvalConfig(split="test"),
    )  # fmt: skip
    return Result(
        setting=setting, system=system, metrics={"ndcg@10": 0.5}, ndcg_identical_kept=None,
        counts=Counts(1, 0, 0, 0, 0), passages=9, in_base_training=False, seconds=1.0,
        date="2026-01-01T00:00:00+00:00", versions={}, machine={}, commit=None,
    )  # fmt: skip


def trained(arch: str, *splits: str, sha256: str = "", **settings: object) -> System:
    places = [TrainedOn(collection=name, split=split) for name, _, split in (one.partition("/") for one in splits)]
    return System(name=arch, sha256=sha256 or arch, arch=arch, settings=settings, trained_on=tuple(places))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"backend": "openvino", "precision": "int8"},
            "encoded by ragcun-cache, backend openvino, precision int8",
        ),
        (
            {"backend": "imported", "precision": "unknown", "settings": {"norms": "all 1"}},
            "vectors imported from elsewhere, precision unknown, norms: all 1",
        ),
        ({}, "encoded by ragcun-cache, backend unknown, precision unknown"),
    ],
)
def test_what_a_cache_says_of_its_vectors_is_said_in_words(spec: dict[str, object], words: str) -> None:
    assert made(spec) == words


def test_every_encoder_is_looked_up_by_its_fingerprint(home: Home, cache_of: Callable[..., Path]) -> None:
    spec = {"backend": "imported", "precision": "unknown"}
    cache_of(home.caches, "elsewhere", Role.PASSAGE, ["p0"], np.eye(1, 8, dtype=np.float16), spec=spec)
    ((_, manifest),) = list_caches(home.caches)
    results = [result(raw_head(8), encoder=encoder) for encoder in (manifest.encoder, manifest.encoder, "gone")]
    assert encoders(results, home) == [
        f"mpnet, fingerprint {manifest.encoder}: vectors imported from elsewhere, precision unknown",
        "mpnet, fingerprint gone: backend and precision unknown (no cache of it is left)",
    ]


def test_judgements_are_named_with_their_number_as_far_as_it_is_known(home: Home) -> None:
    config = HeadConfig(arch=Arch.LEJEPA, in_dim=8, out_dim=8, similarity=Similarity.COSINE)
    record = save_head(home.heads / "one", build_head(config, seed=0), {"train_pairs": 9_800})
    (home.heads / "damaged").mkdir()
    (home.heads / "damaged" / RECORD_NAME).write_text("{")
    systems = [
        raw_head(8),
        trained("lejepa", "msmarco/train", sha256=record.sha256, pairs=10_000),
        trained("gone", "msmarco/train", pairs=10_000),
        trained("also gone", "msmarco/train", pairs=10_000),
        trained("own", "scifact/train", "scifact/dev", pairs=None),
        trained("tuned, labels train", "scifact/train", labels="train", train_queries=None),
        trained("tuned, few", "scifact/train", labels="train", train_queries=200, shuffled=True),
    ]
    assert training([result(system) for system in systems], home) == [
        "msmarco/train, 9,800 pairs (lejepa)",
        "msmarco/train, 10,000 pairs (gone; also gone)",
        "scifact/train, scifact/dev, number of pairs unknown (own)",
        "scifact/train (tuned, labels train)",
        "scifact/train, 200 of the queries, each query with another's passages (tuned, few)",
    ]
    page = provenance_markdown([result(system) for system in systems], home)
    assert "\n- encoder: mpnet, fingerprint e: backend and precision unknown" in page
    assert "\n- trained or chosen by: msmarco/train, 9,800 pairs (lejepa)\n" in page
