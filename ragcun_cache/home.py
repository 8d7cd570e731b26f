"""Where ragcun-cache keeps what it downloads and makes: one folder, ``data`` unless ``RAGCUN_HOME`` says otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.errors import ConfigError


@dataclass(frozen=True)
class Home:
    """The folders below one root. Nothing is created until something is written there."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """``$RAGCUN_HOME``, or ``data`` below the current folder. Raises ConfigError if no folder can be there."""
        root = Path(os.environ.get("RAGCUN_HOME") or "data")
        nearest = next((path for path in (root, *root.parents) if path.exists()), root)
        if nearest.exists() and not nearest.is_dir():
            raise ConfigError(
                "the home is no folder", where=root, found=f"a file: {nearest}", fix="name a folder in RAGCUN_HOME"
            )
        return cls(root)

    @property
    def collections(self) -> Path:
        """Texts and qrels, one folder a collection."""
        return self.root / "collections"

    @property
    def models(self) -> Path:
        """Encoder weights, one folder a model."""
        return self.root / "models"

    @property
    def graphs(self) -> Path:
        """What is converted from encoder weights: one folder a graph. May be removed; it is made again."""
        return self.root / "graphs"

    @property
    def caches(self) -> Path:
        """Cached vectors, ``<collection>/<role>-<fingerprint>-<content>``."""
        return self.root / "caches"

    @property
    def heads(self) -> Path:
        """Trained heads, one folder a run."""
        return self.root / "heads"

    @property
    def results(self) -> Path:
        """Evaluation results: ``runs/<key>.parquet`` and ``per_query/<key>.parquet``."""
        return self.root / "results"

    @property
    def ablations(self) -> Path:
        """What recipes were run and which of their runs failed, one folder a recipe."""
        return self.root / "ablations"

    @property
    def tunings(self) -> Path:
        """What was tried and chosen by ``tune``, one file a tuning."""
        return self.root / "tunings"

    @property
    def bm25(self) -> Path:
        """BM25 indexes of passages, one folder a collection, its content and the parameters."""
        return self.root / "bm25"
