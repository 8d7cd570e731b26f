"""The encoder in the ways that are compared: our whole encode, and sentence-transformers in several settings."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.collections import find_collection
from ragcun_cache.encoder.config import DEFAULT_MODEL, EncodeConfig
from ragcun_cache.encoder.engines.local import LocalEngine
from ragcun_cache.encoder.forward import forward
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.phases import Phases
from ragcun_cache.encoder.pipeline import encode_role
from ragcun_cache.encoder.tokens import PackedTokens
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.home import Home
from ragcun_cache.progress import silent
from ragcun_cache.role import Role

PEERS = Path(".venv-peers")
_SERVER = Path(__file__).with_name("peer_server.py")


class OurEncoder:
    """The whole encode of a collection: read, tokenise, forward pass, hash, write and fsync; the model stays loaded."""

    def __init__(self, home: Home, **settings: str) -> None:
        self.model = FrozenModel(find_weights(DEFAULT_MODEL, home), EncodeConfig.model_validate(settings))
        self.phases = Phases()
        self._engine = LocalEngine(self.model)
        _ = self._engine.dim

    @property
    def name(self) -> str:
        """Backend and precision."""
        return f"{self.model.choice.backend} {self.model.choice.precision}"

    def tokens(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return how many tokens of each text are encoded, special ones included."""
        return self.model.backend.tokenise(list(texts)).n_tokens

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors without writing them: tokens, batches by length, forward passes."""
        backend, limit = self.model.backend, self.model.spec(Role.PASSAGE).max_seq_length
        tokens = PackedTokens.of([backend.tokenise(list(texts))])
        vectors_nd: NDArray[np.float32] = forward(tokens, backend, limit, "float32", silent).vectors_nd
        return vectors_nd

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors, read from the cache that was written; ``phases`` tells of the last call."""
        with tempfile.TemporaryDirectory() as scratch:
            home = Home(Path(scratch) / "data")
            collection = find_collection(str(write_collection(Path(scratch) / "texts", texts)), home)
            content = collection.content_sha256(Role.PASSAGE)
            report = encode_role(collection, Role.PASSAGE, home, self._engine, content)
            self.phases = report.phases
            return EmbeddingCache(report.folder).array()


def write_collection(folder: Path, texts: Sequence[str]) -> Path:
    """Write a collection of the passages ``texts`` and of one query into ``folder``, and return it."""
    (folder / "qrels").mkdir(parents=True)
    records = [json.dumps({"_id": str(row), "text": text}) for row, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "a query"}\n', encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t0\t1\n", encoding="utf-8")
    return folder


class PlainEncoder:
    """``SentenceTransformer(folder).encode(texts)``, nothing set but the dtype, if it is given."""

    def __init__(self, home: Home, dtype: str = "float32") -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(
            str(find_weights(DEFAULT_MODEL, home).folder),
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors."""
        vectors = self._model.encode(list(texts), show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().cpu().numpy()


class PeerEncoder:
    """sentence-transformers with another backend, in the environment ``.venv-peers``: a process that is fed texts."""

    def __init__(self, home: Home, backend: str, **settings: object) -> None:
        folder = find_weights(DEFAULT_MODEL, home).folder.absolute()
        command = [str(PEERS / "bin" / "python"), str(_SERVER), str(folder), backend]
        self._process = subprocess.Popen(
            [*command, json.dumps({"export": True, **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n, dim) unit vectors."""
        assert self._process.stdin is not None
        print(json.dumps(list(texts)), file=self._process.stdin, flush=True)
        return np.asarray(np.load(self._answer(), allow_pickle=False), np.float32)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the peer ended: {self._process.wait()}")
        return line
