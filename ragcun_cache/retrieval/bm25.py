"""BM25 over the texts of a collection, as an index that is built once and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ragcun_cache.collections.collection import Collection
from ragcun_cache.collections.layout import lock, new_folder
from ragcun_cache.encoder.template import TEMPLATE, compose_text
from ragcun_cache.files import sha256_json, write_json
from ragcun_cache.home import Home
from ragcun_cache.role import Role

if TYPE_CHECKING:
    import bm25s

_LANGUAGE = "english"
_IDS_NAME = "ids.json"
_KEY_DIGITS = 16


class Bm25Config(BaseModel):
    """The parameters of BM25 (Robertson and Zaragoza 2009, section 3.3), with the values that Anserini has for BEIR.

    Tokens are words of two letters or more, lower case, without English stop words, cut to their Snowball stems. The
    idf is Lucene's, which is never negative.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k1: float = Field(default=0.9, ge=0.0)
    b: float = Field(default=0.4, ge=0.0, le=1.0)


@dataclass(frozen=True)
class Bm25Index:
    """Scores passages by the words that they share with a query. ``ids`` are the passages in collection order.

    ``sha256`` covers all that a score depends on: the texts, the parameters, and the versions of what cuts and scores.
    """

    ids: list[str]
    sha256: str
    folder: Path
    _index: bm25s.BM25

    @classmethod
    def of(cls, collection: Collection, home: Home, config: Bm25Config | None = None) -> Bm25Index:
        """Open the index of the collection as its file is now, or build it in ``home.bm25``, whole or not at all.

        Raises:
            CollectionError: the passages cannot be read.

        """
        config = config or Bm25Config()
        sha256 = sha256_json(
            {
                "passages": collection.content_sha256(Role.PASSAGE),
                "template": TEMPLATE,
                "language": _LANGUAGE,
                **config.model_dump(),
                "versions": {name: version(name) for name in ("bm25s", "PyStemmer")},
            }
        )
        folder = home.bm25 / f"{collection.name.replace('/', '__')}-{sha256[:_KEY_DIGITS]}"
        with lock(folder):
            try:
                ids, index = _load(folder)
            except (OSError, ValueError, KeyError):  # There is none, or a crash left half of one.
                with new_folder(folder) as partial:
                    _build(collection, config, partial)
                ids, index = _load(folder)
        return cls(ids, sha256, folder, index)

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the score of every passage for each text, (q, n) float32; 0 where they share no word."""
        scores_qn = np.zeros((len(texts), len(self.ids)), dtype=np.float32)
        for row, words in enumerate(_words(texts)):
            if words and self.ids:
                scores_qn[row] = self._index.get_scores(words)
        return scores_qn


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer(_LANGUAGE)
    words: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords=_LANGUAGE, stemmer=stemmer, return_ids=False, show_progress=False
    )
    return words


def _build(collection: Collection, config: Bm25Config, folder: Path) -> None:
    import bm25s

    ids: list[str] = []
    words: list[list[str]] = []
    for batch in collection.texts(Role.PASSAGE):
        ids += batch.ids
        words += _words([compose_text(title, text) for title, text in zip(batch.titles, batch.texts, strict=True)])
    index = bm25s.BM25(k1=config.k1, b=config.b, method="lucene")
    index.index(words or [[]], show_progress=False)
    index.save(folder, show_progress=False)
    write_json(folder / _IDS_NAME, ids)


def _load(folder: Path) -> tuple[list[str], bm25s.BM25]:
    ids: list[str] = json.loads((folder / _IDS_NAME).read_bytes())

    import bm25s

    return ids, bm25s.BM25.load(folder, mmap=True, show_progress=False)
