"""The model card of an exported head: what it is, how it is used, where it comes from, what it scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ragcun_cache.heads.config import ADAPTER
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.similarity import Similarity


@dataclass(frozen=True)
class Score:
    """A figure of the head and of the raw encoder on one split; ``route`` says whether it was trained on it."""

    place: str
    metric: str
    value: float
    raw: float | None
    route: str | None


_USE = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{path}")
queries = model.encode_query(["what is asked"])
passages = model.encode_document(["what may answer it"])
scores = model.similarity(queries, passages)
```

In LangChain, queries and passages take their ways by `task`:

```python
from langchain_huggingface import HuggingFaceEmbeddings

embeddings = HuggingFaceEmbeddings(
    model_name="{path}",
    encode_kwargs={{"task": "document", "prompt_name": "document"}},
    query_encode_kwargs={{"task": "query", "prompt_name": "query"}},
)
```

In LlamaIndex, wrap that, `LangchainEmbedding(embeddings)` of `llama_index.embeddings.langchain`{plain}."""


def model_card(record: HeadRecord, base_model: str, folder: Path, scores: Sequence[Score], *, two_ways: bool) -> str:
    """Return README.md of the exported model, as the Hugging Face hub reads it.

    ``two_ways`` says whether queries and passages go through different layers.
    """
    config = record.config
    head = {
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "ragcun-cache"],
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "base_model": base_model,
    }
    similarity = {
        Similarity.COSINE: "cosine",
        Similarity.DOT: "dot product",
        Similarity.L2: "minus the Euclidean distance",
    }[config.similarity]
    kind = "an adapter" if config.arch == ADAPTER else f"a head ({config.arch})"
    about = (
        f"`{base_model}`, frozen, with {kind} behind it that ragcun-cache trained on cached vectors. Vectors have "
        f"{config.out_dim} dimensions and are compared by {similarity}. "
    )
    if not two_ways:
        about += "Queries and passages go through the same layers."
    elif config.arch == ADAPTER:
        about += (
            "Only queries go through the adapter: passages have the vectors of the base model, so an index of those "
            "can be used as it is."
        )
    else:
        about += (
            "Queries and passages go through layers of their own: use `encode_query` and `encode_document`, as a plain "
            "`encode` takes every text for a passage."
        )
    plain = "" if two_ways else "; its own `HuggingFaceEmbedding` does as well"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {record.name}",
        about,
        "## Use",
        _USE.format(path=folder.name, plain=plain),
        "## Scores",
        _table(scores) if scores else "None: the head has not been evaluated.",
        "## Where it comes from",
        "\n".join(f"- {name}: {value}" for name, value in _origin(record).items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(scores: Sequence[Score]) -> str:
    lines = ["| on | metric | this model | base model | route |", "| --- | --- | ---: | ---: | --- |"]
    for one in scores:
        raw = "–" if one.raw is None else f"{one.raw:.4f}"
        lines.append(f"| {one.place} | {one.metric} | {one.value:.4f} | {raw} | {one.route or '–'} |")
    return "\n".join(lines)


def _origin(record: HeadRecord) -> dict[str, Any]:
    provenance = record.provenance
    train = provenance.get("train") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())
    settings = ", ".join(f"{name} {value}" for name, value in sorted(train.items()) if not isinstance(value, dict))
    return {
        "head": f"{record.name}, sha256 {record.sha256}",
        "encoder fingerprint": provenance.get("encoder"),
        "trained on": f"{provenance.get('train_pairs', 0):,} judged pairs of "
        f"{(provenance.get('caches') or {}).get('collection')}",
        "seed": provenance.get("seed"),
        "settings": settings,
        "versions": versions,
        "commit": provenance.get("commit"),
    }
