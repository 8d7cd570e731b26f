from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.collections.locate import find_collection
from ragcun_cache.home import Home
from ragcun_cache.role import Role

DIM = 16


@pytest.fixture
def judged_collection(
    home: Home, cache_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Write a collection with its caches in which a hidden linear map leads queries to their passages.

    ``words`` is the share of queries that have a word in common with their passage and with no other. Each topic has
    several queries, so that training queries say something of test queries. ``splits`` are numbers of queries.
    """

    def write(
        name: str = "topics",
        *,
        splits: dict[str, int],
        n_passages: int = 150,
        hidden: float = 0.3,
        words: float = 0.5,
        noise: float = 0.15,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        folder = home.collections / name
        (folder / "qrels").mkdir(parents=True)
        passage_nd = _unit(rng.normal(size=(n_passages, DIM)))
        back = np.linalg.inv(np.eye(DIM) + hidden * np.random.default_rng(99).normal(size=(DIM, DIM)))
        with (folder / "corpus.jsonl").open("w") as file:
            for row in range(n_passages):
                file.write(json.dumps({"_id": f"p{row}", "title": "", "text": f"passage about topic{row}"}) + "\n")
        lines, query_rows = [], []
        for split, count in splits.items():
            with (folder / "qrels" / f"{split}.tsv").open("w") as qrels:
                qrels.write("query-id\tcorpus-id\tscore\n")
                for row in rng.integers(n_passages, size=count):
                    text = f"topic{row}" if rng.random() < words else "something else"
                    lines.append({"_id": f"q{len(lines)}", "text": text})
                    query_rows.append(row)
                    qrels.write(f"{lines[-1]['_id']}\tp{row}\t1\n")
        (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        query_md = _unit(_unit(passage_nd[query_rows] @ back.T) + noise * rng.normal(size=(len(lines), DIM)))
        collection = find_collection(name, home)
        ids = {Role.QUERY: [line["_id"] for line in lines], Role.PASSAGE: [f"p{row}" for row in range(n_passages)]}
        for role, rows_nd in ((Role.QUERY, query_md), (Role.PASSAGE, passage_nd)):
            content = collection.content_sha256(role)
            cache_of(home.caches, name, role, ids[role], rows_nd.astype(np.float16), content_sha256=content)
        monkeypatch.setenv("RAGCUN_HOME", str(home.root))
        return folder

    return write


def _unit(rows_nd: np.ndarray) -> np.ndarray:
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd
