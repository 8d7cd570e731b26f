"""What an exported model found in a fresh environment, beside what its head finds by the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ragcun_cache.cache import EmbeddingCache, open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.evaluation.candidates import describe_head, head_encoder, named_heads
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_run
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Encode, Subject
from ragcun_cache.home import Home
from ragcun_cache.retrieval.run import Run, rank_order
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

METRIC = "ndcg@10"
PARITY = 1e-5


def read_run(path: Path) -> Run:
    """Return the run of a TREC file, in trec_eval's order."""
    found: dict[str, list[tuple[float, str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query_id, _, passage_id, _, score, _ = line.split()
        found.setdefault(query_id, []).append((float(score), passage_id))
    return {query_id: rank_order(scored, len(scored)) for query_id, scored in found.items()}


def row_differences(
    folder: Path, subject: Subject, encode: Encode, similarity: Similarity
) -> dict[Role, NDArray[np.float32]]:
    """Return for each vector, (n,), the largest difference of an entry between the model and the cache route."""
    differences = {}
    for role, name, cache in (
        (Role.QUERY, "queries", subject.pair.query),
        (Role.PASSAGE, "passages", subject.pair.passage),
    ):
        ids = json.loads((folder / f"{name}.ids.json").read_bytes())
        expected_ne = _encoded(cache, ids, role, encode)
        if similarity == Similarity.COSINE:
            expected_ne /= np.linalg.norm(expected_ne, axis=1, keepdims=True)
        differences[role] = np.abs(np.load(folder / f"{name}.npy") - expected_ne).max(axis=1)
    return differences


def _encoded(cache: EmbeddingCache, ids: list[str], role: Role, encode: Encode) -> NDArray[np.float32]:
    positions = cache.positions(ids)
    return encode(cache.gather(positions), cache.norms[positions], role)


def main(
    folder: Annotated[Path, typer.Argument(help="What benchmarks/fresh/search_exported.py wrote.")],
    dataset: Annotated[str, typer.Option(help="The collection that it searched.")],
    head: Annotated[str, typer.Option(help="The head that was exported.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder fingerprint, where several are cached.")] = None,
) -> None:
    """Compare vectors and, where the whole collection was searched, NDCG@10 to four digits. Status 1 if it differs."""
    home = Home.default()
    collection = find_collection(dataset, home, download=False)
    (record,) = named_heads([head], home.heads)
    pair = open_pair(home.caches, collection, encoder or record.provenance.get("encoder"))
    subject = Subject.of(collection, pair, EvalConfig())
    encode = head_encoder(record, "cpu")
    differences = row_differences(folder, subject, encode(), record.config.similarity)
    for role, farthest_n in differences.items():
        above = f"{(farthest_n > PARITY).sum():,} of {len(farthest_n):,} vectors above {PARITY:.0e}"
        typer.echo(f"largest difference of an entry, {role}: {farthest_n.max():.1e}; {above}")
    if len(json.loads((folder / "passages.ids.json").read_bytes())) < pair.passage.rows:
        return
    exported = evaluate_run(
        read_run(folder / "run.trec"), subject.query_ids, pair.passage.ids, subject.qrels, subject.config
    ).scores.mean(METRIC)
    ours = subject.evaluate(describe_head(record, home), encode, ResultStore(home.results)).metrics[METRIC]
    typer.echo(f"{METRIC} from text, without ragcun-cache: {exported:.4f}; from the cache: {ours:.4f}")
    if f"{exported:.4f}" != f"{ours:.4f}":
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
