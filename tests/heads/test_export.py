from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ragcun_cache.cli.main import app
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.errors import HeadError
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.heads import SavedHead, apply_head, list_heads, load_head
from ragcun_cache.heads import own as own_heads
from ragcun_cache.heads.card import model_card
from ragcun_cache.heads.config import ADAPTER, AdapterMap, AdapterShape, Arch, HeadConfig, Init, Input, InputScale, Side
from ragcun_cache.heads.export import BaseModel, export_sentence_transformers, maps_roles_apart
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.lejepa import LejepaHead
from ragcun_cache.heads.own import register_head
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import save_head
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

DIM = 32
TEXTS = ["alpha beta", "gamma", "a longer text than the others are", "zeta eta theta iota"]

CONFIGS = {
    "identity": {"arch": Arch.IDENTITY, "init": Init.IDENTITY},
    "lejepa": {"arch": Arch.LEJEPA, "init": Init.IDENTITY, "input_scale": InputScale.SQRT_DIM, "ema": 0.9},
    "lejepa random": {"arch": Arch.LEJEPA, "out_dim": 12, "similarity": Similarity.L2, "ema": 0.9},
    "dot": {"arch": Arch.ISOTROPY, "init": Init.IDENTITY, "similarity": Similarity.DOT},
    "asymmetric": {"arch": Arch.ASYMMETRIC, "out_dim": 12},
    "pooled": {"arch": Arch.UNTRAINED, "input": Input.POOLED, "similarity": Similarity.L2},
    **{
        f"{kind} {side}": {
            "arch": ADAPTER,
            "init": Init.IDENTITY,
            "input_scale": InputScale.SQRT_DIM,
            "adapter": AdapterShape(map=kind, side=side, rank=4 if kind == AdapterMap.LOW_RANK else None),
        }
        for kind in AdapterMap
        for side in Side
    },
}


def saved_head(folder: Path, **settings: object) -> SavedHead:
    """Save a head whose weights are all moved from where they started."""
    given = {"in_dim": DIM, "out_dim": DIM, "similarity": Similarity.COSINE} | settings
    head = build_head(HeadConfig.model_validate(given), seed=0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_head(folder, head, {})
    return load_head(folder)


def units_and_norms(encoder: Path, texts: list[str], prompt: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return what the cache would hold: unit rows, and their norms before."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(encoder), device="cpu")
    pooled = SentenceTransformer(modules=list(model)[:2], device="cpu").encode([prompt + text for text in texts])
    norms = np.linalg.norm(pooled, axis=1)
    return pooled / norms[:, None], norms


@pytest.mark.parametrize("name", CONFIGS)
def test_the_exported_model_gives_what_the_head_makes_of_the_vectors(
    name: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    saved = saved_head(tmp_path / "head", **CONFIGS[name])
    prompts = {Role.QUERY: "ask: ", Role.PASSAGE: ""}
    export_sentence_transformers(saved, BaseModel(tiny_encoder, 16, prompts), "a card", tmp_path / "model")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=False)
    found = {Role.QUERY: model.encode_query(TEXTS), Role.PASSAGE: model.encode_document(TEXTS)}
    expected = {}
    for role in Role:
        units, norms = units_and_norms(tiny_encoder, TEXTS, prompts[role])
        expected[role] = apply_head(saved.head, units, role, norms_n=norms)
        if saved.config.similarity == Similarity.COSINE:
            expected[role] /= np.linalg.norm(expected[role], axis=1, keepdims=True)
        np.testing.assert_allclose(found[role], expected[role], atol=1e-5)
    similarity = model.similarity(found[Role.QUERY], found[Role.PASSAGE]).numpy()
    if saved.config.similarity == Similarity.L2:
        distance = np.linalg.norm(expected[Role.QUERY][:, None] - expected[Role.PASSAGE][None], axis=2)
        np.testing.assert_allclose(similarity, -distance, atol=1e-4)
    else:
        np.testing.assert_allclose(similarity, expected[Role.QUERY] @ expected[Role.PASSAGE].T, atol=1e-4)
    names = {path.name for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert not [one for one in names if one.endswith((".py", ".bin", ".pkl", ".pt"))]


def classic_encoder(tiny_encoder: Path, folder: Path) -> Path:
    """Write the tiny encoder as releases before 6 did."""
    shutil.copytree(tiny_encoder, folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    described = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": DIM, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    return folder


@pytest.mark.parametrize("name", ["lejepa", "linear query"])
def test_older_releases_find_what_they_know(name: str, tmp_path: Path, tiny_encoder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder, model = classic_encoder(tiny_encoder, tmp_path / "encoder"), tmp_path / "model"
    saved = saved_head(tmp_path / "head", **CONFIGS[name])
    export_sentence_transformers(saved, BaseModel(encoder, 8, {}), "card", model)
    routers = list(model.rglob("router_config.json"))
    assert len(routers) == (name == "linear query")
    types = [one["type"] for one in json.loads((model / "modules.json").read_bytes())]
    types += [one for path in routers for one in json.loads(path.read_bytes())["types"].values()]
    assert {kind.rpartition(".")[0] for kind in types} == {"sentence_transformers.models"}
    for dense in model.rglob("*Dense/config.json"):
        assert set(json.loads(dense.read_bytes())) == {"in_features", "out_features", "bias", "activation_function"}
    assert (model / "1_Pooling/config.json").read_bytes() == (encoder / "1_Pooling/config.json").read_bytes()
    assert (model / "tokenizer_config.json").read_bytes() == (encoder / "tokenizer_config.json").read_bytes()
    loaded = SentenceTransformer(str(model), device="cpu", trust_remote_code=False)
    assert loaded.max_seq_length == 8
    long = " ".join(TEXTS * 4)
    cut = SentenceTransformer(str(encoder), device="cpu")
    cut.max_seq_length = 8
    expected = apply_head(saved.head, cut.encode([long]), Role.QUERY, norms_n=np.ones(1))
    np.testing.assert_allclose(loaded.encode_query([long]), expected / np.linalg.norm(expected), atol=1e-5)


def test_layers_of_the_encoder_and_of_the_head_are_not_mistaken_for_each_other(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    encoder, model = classic_encoder(tiny_encoder, tmp_path / "encoder"), tmp_path / "model"
    (encoder / "3_Dense").mkdir()
    Dense(DIM, DIM, activation_function=torch.nn.Tanh()).save(str(encoder / "3_Dense"))
    modules = json.loads((encoder / "modules.json").read_bytes())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (encoder / "modules.json").write_text(json.dumps(modules))
    saved = saved_head(tmp_path / "head", **CONFIGS["pooled"])
    export_sentence_transformers(saved, BaseModel(encoder, 16, {}), "card", model)
    layers = [layer for layer in SentenceTransformer(str(model), device="cpu") if isinstance(layer, Dense)]
    assert [type(layer.activation_function).__name__ for layer in layers] == ["Tanh", "GELU", "Identity"]
    # The encoder's Dense takes unit vectors, as it does where the cache is filled.
    pooled = SentenceTransformer(str(encoder), device="cpu").encode(TEXTS)
    norms = np.linalg.norm(pooled, axis=1)
    expected = apply_head(saved.head, pooled / norms[:, None], Role.QUERY, norms_n=norms)
    np.testing.assert_allclose(SentenceTransformer(str(model), device="cpu").encode_query(TEXTS), expected, atol=1e-5)


def test_the_encoder_that_is_given_stays_as_it_is(tmp_path: Path, tiny_encoder: Path) -> None:
    before = {path: path.read_bytes() for path in tiny_encoder.rglob("*") if path.is_file()}
    saved = saved_head(tmp_path / "head", **CONFIGS["lejepa"])
    base = BaseModel(tiny_encoder, 8, {})
    export_sentence_transformers(saved, base, "card", tmp_path / "model")
    assert {path: path.read_bytes() for path in tiny_encoder.rglob("*") if path.is_file()} == before
    with pytest.raises(HeadError, match="something here already"):
        export_sentence_transformers(saved, base, "card", tmp_path / "model")


def test_a_head_of_ones_own_is_refused_by_name(tmp_path: Path, tiny_encoder: Path) -> None:
    saved = saved_head(tmp_path / "head", **CONFIGS["identity"])
    saved.head.__class__ = type("OwnHead", (saved.head.__class__.__mro__[1],), {})
    with pytest.raises(HeadError, match="cannot be written as modules"):
        export_sentence_transformers(saved, BaseModel(tiny_encoder, 16, {}), "card", tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


class Tilted(LejepaHead):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, for_training=True)

    def encode_query(self, x_bd: torch.Tensor) -> torch.Tensor:
        return super().encode_query(x_bd) + x_bd.roll(1, dims=1)


class Clipped(LejepaHead):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, for_training=True)
        self.output = torch.nn.Hardtanh(-0.1, 0.1)


class OwnLoss(LejepaHead):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, for_training=True)

    def losses(self, batch: PairBatch, step: int) -> dict[str, torch.Tensor]:
        return {"own": super().losses(batch, step)["predictive"]}


@pytest.mark.parametrize("build", [Tilted, Clipped, OwnLoss])
def test_a_head_of_ones_own_is_exported_only_where_it_does_what_its_base_does(
    build: type[LejepaHead], tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_heads, "_registered", {})
    register_head("mine", build)
    saved = saved_head(tmp_path / "head", **{**CONFIGS["lejepa"], "arch": "mine"})
    base = BaseModel(tiny_encoder, 16, {})
    if build is OwnLoss:
        export_sentence_transformers(saved, base, "card", tmp_path / "model")
        assert (tmp_path / "model" / "modules.json").exists()
        return
    with pytest.raises(HeadError, match="does more than the built-in head"):
        export_sentence_transformers(saved, base, "card", tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


def test_the_card_says_which_texts_go_where(tmp_path: Path) -> None:
    for name, apart, said in (
        ("lejepa", False, "the same layers"),
        ("asymmetric", True, "layers of their own"),
        ("linear query", True, "Only queries go through the adapter"),
        ("linear both", False, "the same layers"),
    ):
        saved = saved_head(tmp_path / name, **CONFIGS[name])
        assert maps_roles_apart(saved.head) == apart
        assert said in model_card(saved, "base", tmp_path / "model", [], two_ways=apart)


def test_the_command_finds_the_encoder_and_writes_a_card(
    home: Home,
    tiny_collection: Callable[..., Path],
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sentence_transformers import SentenceTransformer

    tiny_collection("tiny")
    collection = find_collection("tiny", home)
    config = EncodeConfig(model=str(tiny_encoder), backend="torch", precision="fp32", storage_dtype="float32")
    encode_collection(collection, home, config)
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    run = CliRunner().invoke
    assert run(app, ["train-head", "--dataset", "tiny", "--epochs", "1", "--device", "cpu"]).exit_code == 0
    assert run(app, ["eval", "--dataset", "tiny"]).exit_code == 0
    # On the card a split has one figure: that of exact search on what the collection is now.
    assert run(app, ["eval", "--dataset", "tiny", "--index", "sq8"]).exit_code == 0
    store = ResultStore(home.results)
    for result in store.all():
        store.renew(result, "2026-01-01T00:00:00+00:00")
    (collection.folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq55\tp55\t1\n")
    assert run(app, ["eval", "--dataset", "tiny"]).exit_code == 0
    (record,) = list_heads(home.heads)
    out = tmp_path / "model"
    command = ["heads", "export", record.name, "--out", str(out), "--model", str(tiny_encoder)]
    shown = run(app, command)
    assert shown.exit_code == 0, shown.output
    card = (out / "README.md").read_text()
    for part in ("library_name: sentence-transformers", record.sha256, "tiny/test", "encode_query", "ndcg@10"):
        assert part in card
    (newest,) = (result for result in store.all() if result.counts.judged == 1 and result.system.name == record.name)
    (line,) = (line for line in card.splitlines() if line.startswith("| tiny/test |"))
    assert f"| {newest.metrics['ndcg@10']:.4f} |" in line
    assert str(home.root) not in card and str(tmp_path) not in card
    texts = [text for batch in collection.texts(Role.QUERY) for text in batch.texts]
    units, _ = units_and_norms(tiny_encoder, texts)
    expected = apply_head(load_head(record.folder).head, units, Role.QUERY)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(SentenceTransformer(str(out), device="cpu").encode_query(texts), expected, atol=1e-5)

    assert "the same layers" in card

    # Another collection of the same encoder with another prompt is not what the head was trained on.
    tiny_collection("other", seed=1)
    asked = config.model_copy(update={"query_prompt": "ask: "})
    encode_collection(find_collection("other", home), home, asked)
    again = tmp_path / "again"
    assert run(app, [*command[:4], str(again), *command[5:]]).exit_code == 0
    assert json.loads((again / "config_sentence_transformers.json").read_text())["prompts"]["query"] == ""
    about = json.loads((record.folder / "head.json").read_text())
    (record.folder / "head.json").write_text(json.dumps({**about, "caches": {"collection": "tiny"}}))
    unknown = run(app, [*command[:4], str(tmp_path / "unknown"), *command[5:]])
    assert isinstance(unknown.exception, HeadError) and "'ask: '" in str(unknown.exception)

    assert isinstance(run(app, command).exception, HeadError)
    wrong = run(app, [*command[:3], "--out", str(tmp_path / "other"), "--to", "onnx"])
    assert "sentence-transformers" in str(wrong.exception)
