"""The encoder, loaded in the ways that are compared: ours, and sentence-transformers as it comes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.batches import plan_batches
from ragcun_cache.encoder.config import DEFAULT_MODEL, EncodeConfig
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.home import Home

_MAX_SEQ_LENGTH = 384


class OurEncoder:
    """The steps of the encode: tokens, batches by length, forward passes."""

    def __init__(self, home: Home, **settings: str) -> None:
        self.model = FrozenModel(find_weights(DEFAULT_MODEL, home), EncodeConfig.model_validate(settings))
        self._backend = self.model.backend

    def tokens(self, texts: list[str]) -> int:
        """Return how many tokens of ``texts`` are encoded, special ones included."""
        return int(self._backend.tokenise(texts).n_tokens.sum())

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors."""
        tokens = self._backend.tokenise(texts)
        vectors_nd = np.empty((len(texts), self._backend.dim), np.float32)
        for batch in plan_batches(tokens.n_tokens.tolist(), self._backend.batch_tokens, _MAX_SEQ_LENGTH):
            input_ids = [tokens.input_ids[row] for row in batch.rows]
            vectors_nd[batch.rows], _ = self._backend.embed(input_ids, batch.length)
        return vectors_nd


class PlainEncoder:
    """``SentenceTransformer(folder).encode(texts)``, nothing set."""

    def __init__(self, home: Home) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(find_weights(DEFAULT_MODEL, home).folder), local_files_only=True)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors."""
        return np.asarray(self._model.encode(texts, show_progress_bar=False), np.float32)
