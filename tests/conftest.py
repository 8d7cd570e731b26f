"""Fixtures that every test may use: a home in a temporary folder, small collections, small caches, real data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

from ragcun_cache.cache import CacheLayout, CachePair, CacheWriter, Manifest, Shard, open_pair
from ragcun_cache.cache.manifest import encoder_fingerprint, spec_fingerprint
from ragcun_cache.collections import Collection, open_collection
from ragcun_cache.home import Home
from ragcun_cache.role import Role

if TYPE_CHECKING:
    from torch import Tensor

# No test is a stopwatch: the first example of a property may load a library or compile a kernel.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data")


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Folder of a real BEIR-format collection; the test is skipped where there is none on this machine."""
    root = Path(os.environ.get("RAGCUN_TEST_DATA") or REPOSITORY.parent / "shared" / "data")

    def find(name: str) -> Path:
        if not (root / name / "corpus.jsonl").exists():
            pytest.skip(f"no collection {name} in {root} (set RAGCUN_TEST_DATA)")
        return root / name

    return find


@dataclass(frozen=True)
class FakeCollection:
    """What `open_pair` asks of a collection."""

    name: str
    content: Mapping[Role, str]

    @property
    def dataset(self) -> str:
        return self.name

    def content_sha256(self, role: Role) -> str:
        return self.content[role]


def write_cache(
    caches: Path,
    collection: str,
    role: Role,
    ids: Sequence[str],
    vectors_nd: NDArray[np.floating],
    *,
    content_sha256: str | None = None,
    spec: Mapping[str, object] | None = None,
    shard_rows: int = 64,
    norms: NDArray[np.float32] | None = None,
) -> Path:
    """Write a complete cache of given vectors (n, d) and return its folder."""
    full_spec = {"model_id": "fake", "backend": "fake", "precision": "fp32", **(spec or {}), "role": str(role)}
    content = content_sha256 or sha256(f"{collection}/{role}".encode()).hexdigest()
    fingerprint = spec_fingerprint(full_spec)
    layout = CacheLayout.of(caches, collection, role, fingerprint, content)
    asked = Manifest(
        collection=collection,
        role=role,
        content_sha256=content,
        spec=full_spec,
        fingerprint=fingerprint,
        encoder=encoder_fingerprint(full_spec),
        dim=vectors_nd.shape[1],
        dtype=vectors_nd.dtype.name,
        shard_rows=shard_rows,
        total_rows=len(ids),
        provenance={"created": "2026-01-01T00:00:00+00:00"},
    )
    norms = np.ones(len(ids), np.float32) if norms is None else norms
    with CacheWriter(layout, asked) as writer:
        for start in range(writer.manifest.rows, len(ids), shard_rows):
            rows = slice(start, start + shard_rows)
            n = len(ids[rows])
            writer.append(
                Shard(
                    ids=list(ids[rows]),
                    vectors_nd=vectors_nd[rows],
                    text_sha256=[sha256(i.encode("utf-8", "surrogatepass")).digest() for i in ids[rows]],
                    n_tokens=np.full(n, 7, np.int32),
                    truncated=np.zeros(n, bool),
                    norms=norms[rows],
                )
            )
        writer.finish()
    return layout.folder


@pytest.fixture
def like_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lock file that is removed keep a name in its folder until it is closed, as NFS does."""
    unlink, release = os.unlink, FileLock.release

    def rename(path: str | Path, *, dir_fd: int | None = None) -> None:
        if Path(path).name == ".lock":
            os.rename(path, Path(path).with_name(".nfs0"), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(path, dir_fd=dir_fd)

    def close(lock: FileLock, force: bool = False) -> None:
        release(lock, force)
        with suppress(FileNotFoundError):
            unlink(Path(lock.lock_file).with_name(".nfs0"))

    monkeypatch.setattr(os, "unlink", rename)
    monkeypatch.setattr(FileLock, "release", close)


@pytest.fixture(scope="session")
def cache_of() -> Callable[..., Path]:
    """The function `write_cache`, for tests that choose their own vectors."""
    return write_cache


@pytest.fixture
def without_float64() -> Callable[[Tensor], Tensor]:
    """Put a tensor, and all that is computed from it, where there is no float64, as on Apple's GPUs, until `.cpu()`."""
    import torch

    class OnDevice(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is torch.Tensor.cpu:
                return args[0].detach().as_subclass(torch.Tensor)
            found = super().__torch_function__(function, types, args, kwargs or {})
            if isinstance(found, cls) and found.dtype == torch.float64:
                raise TypeError("the device has no float64")
            return found

    return lambda tensor: tensor.as_subclass(OnDevice)


@pytest.fixture
def tiny_collection(home: Home) -> Callable[..., Path]:
    """Write a BEIR-format folder below ``home.collections`` and return it."""

    def write(
        name: str = "tiny",
        *,
        n_passages: int = 120,
        splits: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma".split()
        folder = home.collections / name
        (folder / "qrels").mkdir(parents=True)
        with (folder / "corpus.jsonl").open("w") as corpus:
            for row in range(n_passages):
                text = " ".join(rng.choice(words, size=rng.integers(3, 20)))
                corpus.write(json.dumps({"_id": f"p{row}", "title": f"title {row}", "text": text}) + "\n")
        row = 0
        with (folder / "queries.jsonl").open("w") as queries:
            for split, n_queries in (splits or {"train": 40, "dev": 15, "test": 15}).items():
                with (folder / "qrels" / f"{split}.tsv").open("w") as qrels:
                    qrels.write("query-id\tcorpus-id\tscore\n")
                    for _ in range(n_queries):
                        queries.write(json.dumps({"_id": f"q{row}", "text": f"{words[row % 18]} query {row}"}) + "\n")
                        qrels.write(f"q{row}\tp{row % n_passages}\t1\n")
                        row += 1
        return folder

    return write


@pytest.fixture
def tiny_pair(home: Home) -> Callable[..., CachePair]:
    """Write caches of random unit vectors in which query ``q<i>`` lies near passage ``p<i>``, and open them."""

    def write(
        collection: str = "tiny",
        *,
        n_queries: int = 70,
        n_passages: int = 120,
        dim: int = 32,
        noise: float = 1.0,
        seed: int = 0,
        content: Mapping[Role, str] | None = None,
    ) -> CachePair:
        rng = np.random.default_rng(seed)
        passage_nd = rng.normal(size=(n_passages, dim))
        query_nd = passage_nd[np.arange(n_queries) % n_passages] + noise * rng.normal(size=(n_queries, dim))
        content = content or {role: sha256(f"{collection}/{role}".encode()).hexdigest() for role in Role}
        for role, prefix, vectors_nd in ((Role.QUERY, "q", query_nd), (Role.PASSAGE, "p", passage_nd)):
            norms = np.linalg.norm(vectors_nd, axis=1).astype(np.float32)
            unit_nd = (vectors_nd / norms[:, None]).astype(np.float16)
            ids = [f"{prefix}{row}" for row in range(len(unit_nd))]
            write_cache(home.caches, collection, role, ids, unit_nd, content_sha256=content[role], norms=norms)
        return open_pair(home.caches, FakeCollection(collection, content))

    return write


@pytest.fixture
def cached_collection(
    tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]
) -> Callable[..., tuple[Collection, CachePair]]:
    """Write a collection and caches of it: what `tiny_collection` and `tiny_pair` make of one name, size and seed."""

    def write(
        name: str = "tiny",
        *,
        n_passages: int = 120,
        splits: Mapping[str, int] | None = None,
        seed: int = 0,
        **vectors: Any,
    ) -> tuple[Collection, CachePair]:
        splits = splits or {"train": 40, "dev": 15, "test": 15}
        collection = open_collection(tiny_collection(name, n_passages=n_passages, splits=splits, seed=seed), name)
        content = {role: collection.content_sha256(role) for role in Role}
        n_queries = sum(splits.values())
        return collection, tiny_pair(
            name, n_queries=n_queries, n_passages=n_passages, seed=seed, content=content, **vectors
        )

    return write


def _build_encoder(
    folder: Path, kind: str = "bert", *, dim: int = 32, max_seq_length: int = 16, **config: object
) -> Path:
    """Save a sentence-transformers model of random weights that reads any text, letter by letter if need be.

    ``kind`` is a ``model_type`` of transformers; what is not a ``bert`` has a Dense module behind its pooling.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    pieces = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    plain = folder / "plain"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(plain)
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": dim,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    AutoModel.from_config(AutoConfig.for_model(kind, **settings | config)).save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=max_seq_length), Pooling(dim, "mean")]
    modules += [] if kind == "bert" else [Dense(dim, dim)]
    SentenceTransformer(modules=[*modules, Normalize()], device="cpu").save(str(folder / "tiny-encoder"))
    return folder / "tiny-encoder"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random-weight sentence-transformers model: 32 dimensions, 16 tokens."""
    return _build_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def tiny_encoder_of(tmp_path: Path) -> Callable[..., Path]:
    """Build a random-weight model of another kind; settings are those of its config."""
    return lambda kind, **config: _build_encoder(tmp_path / kind, kind, **config)
