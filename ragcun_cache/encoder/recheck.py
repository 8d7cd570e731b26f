"""Encoding rows of a cache once more: to compare a sample of them, or to put back damaged shards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ragcun_cache.cache import Damage, EmbeddingCache, Manifest, Shard, list_caches, repair
from ragcun_cache.cache.command import encode_command
from ragcun_cache.cache.manifest import spec_differences
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.blocks import encode_rows, text_blocks
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home
from ragcun_cache.progress import progress


@dataclass(frozen=True)
class SampleCheck:
    """Rows that were encoded again.

    Attributes:
        rows: how many.
        min_cosine: the least agreement between a cached vector and its new one; 1 where there are no rows.
        worst_id: the row that it belongs to; empty where there are none.
    """

    rows: int
    min_cosine: float
    worst_id: str


def model_of(manifest: Manifest, collection: Collection, home: Home, model: str | None, device: str) -> FrozenModel:
    """Return the model that made a cache, settled as it was then.

    ``model`` says where it is; None: wherever the name that the cache carries leads to.

    Raises:
        CacheError: the vectors were imported, the collection is another version than was encoded, or the model is not
            the one that made them.
    """
    spec = manifest.spec
    where = f"{manifest.collection} {manifest.role}"
    if spec.get("backend") == "imported":
        raise CacheError("imported vectors cannot be encoded again", where=where, fix="import them again")
    if collection.content_sha256(manifest.role) != manifest.content_sha256:
        others = [found for _, found in list_caches(home.caches, manifest.collection)]
        raise CacheError(
            "the collection has changed since it was encoded",
            where=collection.folder,
            fix=encode_command(collection.dataset, [*others, manifest]),
        )
    model = model or str(spec["model_id"])
    config = EncodeConfig.of_spec(spec, model, device)
    frozen = FrozenModel(find_weights(model, home, str(spec["model_id"])), config)
    if differences := spec_differences(spec, frozen.spec(manifest.role).to_dict()):
        raise CacheError(
            "this is not the model that made the cache (cached → given)",
            where=where,
            found="; ".join(differences),
            fix="name the model with --model",
        )
    return frozen


def check_sample(cache: EmbeddingCache, collection: Collection, frozen: FrozenModel, rows: int) -> SampleCheck:
    """Encode ``rows`` rows again, spread evenly over the cache, and compare them with what is cached."""
    if not cache.rows:
        return SampleCheck(0, 1.0, "")
    chosen = np.unique(np.linspace(0, cache.rows - 1, num=min(rows, cache.rows)).astype(np.int64))
    spec = frozen.spec(cache.role)
    ids: list[str] = []
    texts: list[str] = []
    start = 0
    for block_ids, block_texts in text_blocks(collection, cache.role, cache.manifest.shard_rows):
        inside = chosen[(chosen >= start) & (chosen < start + len(block_ids))] - start
        ids += [block_ids[row] for row in inside]
        texts += [block_texts[row] for row in inside]
        start += len(block_ids)
    with progress(f"encode {len(ids)} rows again", "rows", len(ids)) as advance:
        again = encode_rows(ids, texts, spec, frozen.backend, advance)
    cached_nd, again_nd = cache.gather(chosen), again.vectors_nd.astype(np.float32)
    norms = np.linalg.norm(cached_nd, axis=1) * np.linalg.norm(again_nd, axis=1)
    cosine_n = np.einsum("nd,nd->n", cached_nd, again_nd) / np.maximum(norms, 1e-12)
    worst = int(np.argmin(cosine_n))
    return SampleCheck(len(ids), float(cosine_n[worst]), ids[worst])


def repair_cache(
    folder: Path,
    manifest: Manifest,
    damages: list[Damage],
    collection: Collection | None,
    frozen: FrozenModel | None,
) -> list[str]:
    """Encode the damaged shards again and write exactly what is damaged; return a line for each thing done.

    A damaged manifest alone needs neither the collection nor the model.

    Raises:
        CacheError: both copies of the manifest are damaged, or another process writes here.
    """

    def shard_at(number: int) -> Shard:
        assert collection is not None
        assert frozen is not None
        blocks = text_blocks(collection, manifest.role, manifest.shard_rows)
        ids, texts = next(islice(blocks, number, None))
        with progress(f"encode shard {number} again", "rows", len(ids)) as advance:
            return encode_rows(ids, texts, frozen.spec(manifest.role), frozen.backend, advance)

    return repair(folder, damages, shard_at)
