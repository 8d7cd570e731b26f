from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from ragcun_cache.encoder import EncodeConfig, EncoderSpec, Weights, find_weights
from ragcun_cache.encoder import weights as weights_module
from ragcun_cache.errors import EncoderError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


@pytest.fixture
def model(tmp_path: Path, tiny_encoder: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder, tmp_path / "model"))


def spec_of(folder: Path, role: Role = Role.PASSAGE, **settings: object) -> EncoderSpec:
    config = EncodeConfig.model_validate({"backend": "torch", "precision": "fp32", **settings})
    return EncoderSpec.of(Weights.of("model", folder, folder.parent / "graphs"), role, config)


def test_whatever_changes_a_vector_changes_the_fingerprint(model: Path) -> None:
    seen = {spec_of(model).fingerprint}

    def is_new(spec: EncoderSpec) -> bool:
        known = spec.fingerprint in seen
        seen.add(spec.fingerprint)
        return not known

    assert not is_new(spec_of(model))
    assert is_new(spec_of(model, Role.QUERY))
    assert is_new(spec_of(model, max_seq_length=8))
    assert is_new(spec_of(model, passage_prompt="passage: "))
    assert is_new(spec_of(model, storage_dtype="float32"))
    assert is_new(spec_of(model).model_copy(update={"precision": "bf16"}))
    assert is_new(spec_of(model).model_copy(update={"model_id": "other/model"}))
    modules = json.loads((model / "modules.json").read_text())
    (model / "modules.json").write_text(json.dumps(modules[:-1]))
    assert is_new(spec_of(model)), "a Normalize that is gone"
    pooling = model / modules[1]["path"] / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "max"}))
    assert is_new(spec_of(model)), "another pooling"
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert is_new(spec_of(model)), "another tokenizer"
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert is_new(spec_of(model)), "other weights"


def test_the_spec_of_a_plain_model_is_what_it_has_always_been(tmp_path: Path) -> None:
    """Of the layout of all-mpnet-base-v2: another fingerprint here is the end of every cache that was ever made."""
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{name}"}
        for path, name in (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    ]
    config = {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1, "_name_or_path": "elsewhere"}
    files = {
        "modules.json": modules,
        "config.json": config,
        "sentence_bert_config.json": {"max_seq_length": 384, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True},
        "tokenizer_config.json": {"model_max_length": 512},
        "vocab.txt": "[PAD]",
        "model.safetensors": "",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    assert [spec_of(tmp_path, role).fingerprint for role in Role] == ["e862dadd55ba4e0b", "52bfc5d4464672f7"]


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_settings_under_an_old_name_are_read_and_part_of_the_spec(model: Path, kind: str) -> None:
    own = model / "sentence_bert_config.json"
    settings = json.loads(own.read_text())
    own.unlink()
    seen = {spec_of(model).fingerprint}
    for lower in (False, True):
        old = model / f"sentence_{kind}_config.json"
        old.write_text(json.dumps({**settings, "max_seq_length": 12, "do_lower_case": lower}))
        spec = spec_of(model)
        assert (spec.max_seq_length, spec.modules[0]["config"]["do_lower_case"]) == (12, lower)
        seen.add(spec.fingerprint)
    assert len(seen) == 3
    own.write_text(json.dumps({**settings, "max_seq_length": 9}))
    assert spec_of(model).max_seq_length == 9, "the new name goes first"


@pytest.mark.parametrize("name", ["spm.model", "bpe.codes"])
def test_the_words_of_every_tokenizer_are_fetched_and_part_of_the_spec(model: Path, name: str) -> None:
    before = spec_of(model).fingerprint
    (model / name).write_text("words")
    assert spec_of(model).fingerprint != before
    assert any(fnmatch(name, pattern) for pattern in weights_module._HUB_FILES)


@pytest.mark.parametrize("key", ["rope_theta", "global_rope_theta", "rope_parameters", "rotary_emb_base"])
def test_rotary_positions_in_half_precision_are_of_another_spec_than_when_they_were_rounded(
    model: Path, key: str
) -> None:
    def versions() -> list[int]:
        settled = [("torch", "fp32"), ("openvino", "bf16"), ("torch", "bf16"), ("torch", "fp16")]
        return [spec_of(model, backend=backend, precision=name).schema_version for backend, name in settled]

    path = model / "config.json"
    config = json.loads(path.read_text()) | {"id2label": {"0": "Europe"}}
    path.write_text(json.dumps(config))
    assert versions() == [1, 1, 1, 1]
    path.write_text(json.dumps(config | {key: 10_000}))
    assert versions() == [1, 1, 2, 2]


def test_int8_is_of_another_spec_than_when_values_were_rounded_too(model: Path) -> None:
    assert spec_of(model, backend="openvino", precision="int8").schema_version == 3


def test_where_the_model_lies_is_not_part_of_it(model: Path, tiny_encoder: Path) -> None:
    assert spec_of(model).fingerprint == spec_of(tiny_encoder).fingerprint


def test_queries_and_passages_of_one_encoder_are_known_as_such(model: Path) -> None:
    query = spec_of(model, Role.QUERY, query_prompt="q: ")
    passage = spec_of(model, Role.PASSAGE, passage_prompt="p: ")
    assert query.fingerprint != passage.fingerprint
    assert query.encoder == passage.encoder
    assert query.encoder != spec_of(model, Role.QUERY, max_seq_length=8).encoder


def test_prompts_of_the_model_are_used_unless_others_are_asked_for(model: Path) -> None:
    path = model / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"query": "Q: ", "document": "D: "}, "default_prompt_name": None}))
    assert (spec_of(model, Role.QUERY).prompt, spec_of(model).prompt) == ("Q: ", "D: ")
    assert spec_of(model, Role.QUERY, query_prompt="").prompt == ""
    path.write_text(json.dumps({"prompts": {"query": "Q: ", "document": None}, "default_prompt_name": "query"}))
    assert spec_of(model).prompt == ""


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="no safetensors weights"):
        spec_of(model)


def test_weights_below_a_folder_that_is_named_onnx_are_those_of_a_model(model: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(model, tmp_path / "onnx" / "model"))
    shutil.copytree(model, moved / "onnx")
    assert spec_of(moved).weights == spec_of(model).weights


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not a sentence-transformers model"):
        spec_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["sentence_transformers.base.modules.router.Router", "sentence_transformers.models.Asym"]
)
@pytest.mark.parametrize("position", [0, 2])
def test_a_model_with_different_ways_for_queries_and_passages_is_refused(model: Path, name: str, position: int) -> None:
    path = model / "modules.json"
    modules = json.loads(path.read_text())
    modules.insert(position, {"idx": position, "name": str(position), "path": f"{position}_Router", "type": name})
    path.write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"different ways[\s\S]*encode its base model, and apply .* as a head"):
        spec_of(model, Role.QUERY)


def test_a_model_that_leaves_its_prompt_out_of_pooling_is_refused(model: Path) -> None:
    path = model / "1_Pooling" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": False}))
    with pytest.raises(EncoderError, match="leave the prompt out of pooling"):
        spec_of(model)


def test_wrong_weights_under_a_known_name_are_refused(home: Home, model: Path) -> None:
    shutil.copytree(model, home.models / "all-mpnet-base-v2")
    with pytest.raises(EncoderError, match="not the weights of all-mpnet-base-v2"):
        find_weights("all-mpnet-base-v2", home)


def test_an_unknown_model_says_where_it_was_looked_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_from_hub", lambda _: "no network")
    with pytest.raises(EncoderError, match=r"no model 'nowhere/nothing'[\s\S]*no network[\s\S]*--model"):
        find_weights("nowhere/nothing", home)


def test_where_a_proxy_refuses_the_hub_packages_are_tried(
    home: Home, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    class ProxyError(Exception):
        """As that of the HTTP library, which is no OSError."""

    def download(name: str, **settings: object) -> str:
        raise ProxyError("403 Forbidden")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(EncoderError, match="403 Forbidden"):
        find_weights("nowhere/nothing", home)
    monkeypatch.setattr(weights_module, "_PACKAGES", {"small": ["small==1"]})
    monkeypatch.setattr(weights_module, "_from_packages", lambda *_: model)
    assert find_weights("small", home).folder == model


def test_a_snapshot_without_the_model_itself_is_asked_for_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    (tmp_path / "partial").mkdir()
    partial = Path(shutil.copy(model / "tokenizer.json", tmp_path / "partial")).parent
    whole, asked = model, list[bool]()

    def download(name: str, *, local_files_only: bool, **settings: object) -> str:
        asked.append(local_files_only)
        return str(partial if local_files_only else whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert weights_module._from_hub("somebody/small") == whole
    for name in ("modules.json", "config.json"):
        shutil.copy(model / name, partial)
    assert weights_module._from_hub("somebody/small") == whole
    shutil.copy(model / "model.safetensors", partial)
    (partial / "model.safetensors.index.json").write_text('{"weight_map": {"layer": "model-00002-of-2.safetensors"}}')
    assert weights_module._from_hub("somebody/small") == whole
    assert asked == [True, False] * 3
    (partial / "model.safetensors.index.json").unlink()
    assert weights_module._from_hub("somebody/small") == partial


def test_a_model_of_the_hub_keeps_its_whole_name_and_a_folder_may_be_given_one(
    home: Home, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights_module, "_from_hub", lambda name: asked.append(name) or model)
    assert find_weights("somebody/small", home).model_id == "somebody/small"
    assert find_weights("sentence-transformers/small", home).model_id == "small"
    assert find_weights("small", home).model_id == "small"
    assert asked == ["somebody/small", "sentence-transformers/small", "sentence-transformers/small"]
    assert find_weights(str(model), home).model_id == model.name
    assert find_weights(str(model), home, "somebody/small").model_id == "somebody/small"


def test_more_tokens_than_the_model_has_positions_are_refused(model: Path) -> None:
    with pytest.raises(EncoderError, match=r"at most 64[\s\S]*found:    65"):
        spec_of(model, max_seq_length=65)
    assert spec_of(model, max_seq_length=64).max_seq_length == 64


@pytest.mark.parametrize("kind", ["mpnet", "roberta", "xlm-roberta", "camembert"])
def test_positions_before_the_first_token_are_not_counted(model: Path, kind: str) -> None:
    default = spec_of(model).max_seq_length
    path, own = model / "config.json", model / "sentence_bert_config.json"
    config = json.loads(path.read_text()) | {"model_type": kind, "max_position_embeddings": 514, "pad_token_id": 1}
    path.write_text(json.dumps(config))
    assert spec_of(model, max_seq_length=512).max_seq_length == 512
    for asked in (513, 514):
        with pytest.raises(EncoderError, match=r"at most 512"):
            spec_of(model, max_seq_length=asked)
    assert spec_of(model).max_seq_length == default, "what the model says of itself stands"
    settings = {key: one for key, one in json.loads(own.read_text()).items() if "length" not in key}
    own.write_text(json.dumps({**settings, "max_seq_length": 514}))
    assert spec_of(model).max_seq_length == 512, "except where it says too much"
    own.write_text(json.dumps(settings))
    tokenizer = model / "tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"model_max_length": 10**30}))
    assert spec_of(model).max_seq_length == 512
