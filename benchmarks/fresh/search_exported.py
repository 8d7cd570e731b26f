"""Search a BEIR collection with an exported model, where sentence-transformers is installed and nothing of ours is.

``python search_exported.py MODEL COLLECTION OUT`` encodes the passages and
the judged queries of a folder in the BEIR layout, and writes ``OUT/run.trec`` (the 101 best passages of each query by
the model's own similarity, exact), and the vectors with their ids. ``python -m benchmarks.exported`` scores them.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer, __version__

DEPTH = 101  # One more than metrics need: a passage with its query's own id is dropped later.


def main() -> None:
    """Read, encode, search, write."""
    if "ragcun_cache" in sys.modules:
        raise SystemExit("this must run without ragcun-cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("collection", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--passages", type=int, help="only the first so many")
    parser.add_argument("--queries", type=int, help="only the first so many")
    parser.add_argument("--backend", default="torch", help="of sentence-transformers: torch, onnx, openvino")
    arguments = parser.parse_args()

    passages = [
        (line["_id"], f"{line.get('title') or ''} {line.get('text') or ''}".strip())
        for line in _lines(arguments.collection / "corpus.jsonl")
    ][: arguments.passages]
    with (arguments.collection / "qrels" / f"{arguments.split}.tsv").open(encoding="utf-8", newline="") as file:
        judged = {row["query-id"] for row in csv.DictReader(file, delimiter="\t")}
    queries = [
        (line["_id"], (line.get("text") or "").strip())
        for line in _lines(arguments.collection / "queries.jsonl")
        if line["_id"] in judged
    ][: arguments.queries]

    model = SentenceTransformer(
        str(arguments.model), device="cpu", trust_remote_code=False, local_files_only=True, backend=arguments.backend
    )
    query_qe = model.encode_query([text for _, text in queries], show_progress_bar=True)
    passage_ne = model.encode_document([text for _, text in passages], show_progress_bar=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out / "queries.npy", query_qe)
    np.save(arguments.out / "passages.npy", passage_ne)
    for name, rows in (("queries", queries), ("passages", passages)):
        (arguments.out / f"{name}.ids.json").write_text(json.dumps([row for row, _ in rows]), encoding="utf-8")
    score_qn = model.similarity(query_qe, passage_ne)
    _write_run(arguments.out / "run.trec", [row for row, _ in queries], [row for row, _ in passages], score_qn)
    found = f"{len(queries)} queries, {len(passages)} passages"
    _say(f"{arguments.out}: {found}, sentence-transformers {__version__} on {arguments.backend}, no ragcun-cache here")


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write_run(path: Path, query_ids: Sequence[str], passage_ids: Sequence[str], score_qn: torch.Tensor) -> None:
    found = score_qn.topk(min(DEPTH, len(passage_ids)), dim=1)
    with path.open("w", encoding="utf-8") as file:
        for query_id, scores, rows in zip(query_ids, found.values.tolist(), found.indices.tolist(), strict=True):
            for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=1):
                file.write(f"{query_id} Q0 {passage_ids[row]} {rank} {score:.9g} exported\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
