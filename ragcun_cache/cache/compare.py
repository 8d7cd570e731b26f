"""How two caches differ: in what they are, and in their vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragcun_cache.cache.manifest import spec_differences
from ragcun_cache.cache.reader import EmbeddingCache


@dataclass(frozen=True)
class Comparison:
    """Two caches beside each other.

    Attributes:
        differences: a line for every field of spec or collection that differs, first → second.
        shared_ids: ids that both hold.
        identical_rows: of these, vectors that are equal to the last bit.
        min_cosine: the least cosine between the two vectors of a shared id; None where dimensions differ or none is
            shared.
    """

    differences: list[str]
    shared_ids: int
    identical_rows: int
    min_cosine: float | None


def compare_caches(first: EmbeddingCache, second: EmbeddingCache) -> Comparison:
    """Compare specs, collections and vectors of two caches; both are read into memory."""
    identity = ("collection", "content_sha256", "total_rows", "complete")
    differences = spec_differences(first.manifest.spec, second.manifest.spec) + [
        f"{name}: {getattr(first.manifest, name)!r} → {getattr(second.manifest, name)!r}"
        for name in identity
        if getattr(first.manifest, name) != getattr(second.manifest, name)
    ]
    held = set(second.ids)
    shared = [identifier for identifier in first.ids if identifier in held]
    if not shared or first.dim != second.dim:
        return Comparison(differences, len(shared), 0, None)
    first_nd = first.gather(first.positions(shared))
    second_nd = second.gather(second.positions(shared))
    identical = int((first_nd == second_nd).all(axis=1).sum())
    norms = np.linalg.norm(first_nd, axis=1) * np.linalg.norm(second_nd, axis=1)
    cosine_n = np.einsum("nd,nd->n", first_nd, second_nd) / np.maximum(norms, 1e-12)
    return Comparison(differences, len(shared), identical, float(cosine_n.min()))
