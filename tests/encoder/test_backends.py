from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragcun_cache.collections import find_collection
from ragcun_cache.encoder import EncodeConfig, EngineConfig, choice, encode_collection, graph
from ragcun_cache.encoder.backend import Backend, OutOfMemory
from ragcun_cache.encoder.batches import padded_length
from ragcun_cache.encoder.choice import choose, is_decoder
from ragcun_cache.encoder.engines import open_engine
from ragcun_cache.encoder.engines.local import LocalEngine
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.graph import transformer_graph
from ragcun_cache.encoder.modules import Modules
from ragcun_cache.encoder.openvino_backend import OpenvinoBackend
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import ConfigError, EncoderError
from ragcun_cache.files import sha256_file
from ragcun_cache.home import Home

TEXTS = ["one", "two words", "a longer text of several words, and some more", "😀 emoji", ""]


@pytest.fixture(scope="module")
def weights(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights.of("tiny", tiny_encoder, tmp_path_factory.mktemp("home") / "graphs")


def backend_of(weights: Weights, **settings_: str) -> Backend:
    return FrozenModel(weights, EncodeConfig.model_validate({"device": "cpu", **settings_})).backend


def vectors_of(backend: Backend, texts: list[str]) -> np.ndarray:
    tokens = backend.tokenise(texts)
    return np.concatenate([backend.embed([ids], len(ids))[0] for ids in tokens.input_ids])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-3), ("int8", 1e-3)])
def test_openvino_gives_the_vectors_of_torch(weights: Weights, precision: str, tolerance: float) -> None:
    expected_nd = vectors_of(backend_of(weights, backend="torch", precision="fp32"), TEXTS)
    found_nd = vectors_of(backend_of(weights, backend="openvino", precision=precision), TEXTS)
    assert np.einsum("nd,nd->n", expected_nd, found_nd).min() > 1 - tolerance
    if precision == "fp32":
        np.testing.assert_allclose(found_nd, expected_nd, atol=tolerance)


def test_a_model_that_would_cut_its_vectors_is_stored_whole(weights: Weights, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights.folder, tmp_path / "model"))
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncate_dim": 8}))
    cut = backend_of(Weights.of("cut", folder, tmp_path), backend="torch", precision="fp32")
    assert cut.dim == 32
    whole = backend_of(weights, backend="torch", precision="fp32")
    np.testing.assert_array_equal(vectors_of(cut, TEXTS), vectors_of(whole, TEXTS))


def test_in_bf16_only_the_weights_of_the_transformer_are_rounded(
    tiny_encoder_of: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    folder = tiny_encoder_of("modernbert", bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
    full, half = (Modules(folder, device="cpu", max_seq_length=16, precision=name) for name in ("fp32", "bf16"))
    expected, found = dict(full.transformer.named_buffers()), dict(half.transformer.named_buffers())
    assert any("inv_freq" in name for name in found)
    for name, buffer in found.items():
        torch.testing.assert_close(buffer, expected[name], rtol=0, atol=0)
    for (name, weight), rounded in zip(full.transformer.named_parameters(), half.transformer.parameters(), strict=True):
        assert torch.equal(weight.bfloat16(), rounded), name
    for whole, module in zip(full._rest, half._rest, strict=True):
        for weight, other in zip(whole.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(other, weight, rtol=0, atol=0)
    assert any(True for module in half._rest for _ in module.parameters())
    backend = backend_of(Weights.of("rotary", folder, tmp_path), backend="torch", precision="bf16")
    assert np.isfinite(vectors_of(backend, TEXTS)).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_of_openvino_is_the_same_bytes_in_every_batch(weights: Weights, precision: str) -> None:
    backend = backend_of(weights, backend="openvino", precision=precision)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(3, 16), st.integers(1, 20), st.randoms(use_true_random=False))
    def alone_or_together(length: int, rows: int, random) -> None:
        input_ids = [[random.randrange(5, 60) for _ in range(length)] for _ in range(rows)]
        together_bd, norms_b = backend.embed(input_ids, length)
        for row, ids in enumerate(input_ids):
            alone_bd, norm_b = backend.embed([ids], length)
            assert alone_bd[0].tobytes() == together_bd[row].tobytes()
            assert norm_b[0] == norms_b[row]

    alone_or_together()


def test_padding_of_a_long_text_is_within_a_local_window(tiny_encoder_of: Callable[..., Path], tmp_path: Path) -> None:
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    folder = tiny_encoder_of("modernbert", max_seq_length=4096, max_position_embeddings=4096, **special)
    local = Weights.of("local", folder, tmp_path / "graphs")
    ids, vectors = [5 + token % 50 for token in range(2049)], []
    for name in ("openvino", "torch"):
        backend = backend_of(local, backend=name, precision="fp32")
        vectors.append(backend.embed([ids], padded_length(len(ids), 4096))[0])
    np.testing.assert_allclose(*vectors, atol=1e-4)


def test_a_model_is_converted_once(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = Modules(weights.folder, device="cpu", max_seq_length=16)
    logger = logging.getLogger()
    before = logger.level, logger.handlers[:]
    graph._convert(weights, modules.transformer)
    assert (logger.level, logger.handlers) == before, "what ragcun-cache warns of would no longer be seen"
    path = transformer_graph(weights, modules.transformer, int8=False)
    monkeypatch.setattr(graph, "_convert", lambda *_: pytest.fail("converted again"))
    assert transformer_graph(weights, modules.transformer, int8=False) == path
    assert not list(filter(Path.is_dir, weights.graphs.glob(".*"))), "half-made graphs are removed"


@pytest.fixture
def converted(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """A function that returns the graph in a home of its own; what has to be converted was converted before."""
    modules = Modules(weights.folder, device="cpu", max_seq_length=16)
    made = graph._convert(weights, modules.transformer)
    monkeypatch.setattr(graph, "_convert", lambda *_: made)
    own = Weights(weights.model_id, weights.folder, weights.sha256, tmp_path / "graphs")
    return lambda: transformer_graph(own, modules.transformer, int8=False)


def test_a_graph_that_is_not_what_was_written_is_converted_again(converted: Callable[[], Path]) -> None:
    folder = converted().parent
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sound.keys() == {"transformer.bin", "transformer.xml", "sha256.json"}
    for name, content in sound.items():
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        (folder / name).write_bytes(damaged)
        assert converted().parent == folder
        assert (folder / "transformer.bin").read_bytes() == sound["transformer.bin"]
        assert json.loads((folder / "sha256.json").read_bytes()) == {
            one: sha256_file(folder / one) for one in ("transformer.xml", "transformer.bin")
        }
    (folder / "sha256.json").unlink()  # As every graph was written once.
    converted()
    assert (folder / "sha256.json").exists()
    assert not list(filter(Path.is_dir, folder.parent.glob(".*"))), "half-made graphs are removed"


def test_who_comes_while_a_graph_is_written_waits_for_it(
    converted: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    save, others = openvino.save_model, list[threading.Thread]()

    def saved(*given: object, **settings_: object) -> None:
        others.append(threading.Thread(target=converted))
        others[-1].start()
        others[-1].join(0.2)
        assert others[-1].is_alive()
        save(*given, **settings_)

    monkeypatch.setattr(openvino, "save_model", saved)
    path = converted()
    (other,) = others
    other.join()
    assert len(others) == 1, "the other wrote it again"
    assert path.exists()


def test_what_a_killed_process_left_of_a_graph_is_removed(converted: Callable[[], Path]) -> None:
    path = converted()
    for kind in ("partial", "old"):
        (path.parents[1] / f".{path.parent.name}.{kind}" / "half").mkdir(parents=True)
    path.unlink()
    assert converted() == path
    assert not list(filter(Path.is_dir, path.parents[1].glob(".*")))


def test_a_model_that_cannot_be_converted_is_named(weights: Weights, tmp_path: Path) -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            raise ValueError("no such thing")

    other = Weights(weights.model_id, weights.folder, weights.sha256, tmp_path / "graphs")
    with pytest.raises(EncoderError, match=r"cannot convert[\s\S]*--backend torch"):
        transformer_graph(other, Odd(), int8=False)
    assert not list(tmp_path.rglob("*.xml"))


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 9.00 GB)",
        "Invalid buffer size: 18.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_batch_that_does_not_fit_is_known_on_every_device(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    backend = backend_of(weights, backend="torch", precision="fp32")

    def fail(error: Exception) -> None:
        raise error

    monkeypatch.setattr(backend, "_transformer", lambda features: fail(RuntimeError(message)))
    with pytest.raises(OutOfMemory):
        backend.embed([[1, 2]], 2)
    monkeypatch.setattr(backend, "_transformer", lambda features: fail(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        backend.embed([[1, 2]], 2)


def test_a_model_that_cannot_be_loaded_is_named(weights: Weights, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights.folder, tmp_path / "model"))
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    code = {"model_type": "of-its-own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    for config in ({}, whole | code, whole | {"hidden_size": 31}):
        path.write_text(json.dumps(config))
        with pytest.raises(EncoderError, match=r"cannot be loaded[\s\S]*model[\s\S]*found: +\w+Error: \w+"):
            Modules(folder, device="cpu", max_seq_length=16)


def test_openvino_takes_the_threads_that_it_is_given_and_no_other_setting(weights: Weights) -> None:
    vectors = []
    for threads, pinned in ((None, True), (1, False)):
        model = FrozenModel(weights, EncodeConfig(device="cpu", backend="openvino", precision="fp32"), threads)
        assert isinstance(model.backend, OpenvinoBackend)
        compiled = model.backend._request.get_compiled_model()
        assert threads in (None, compiled.get_property("INFERENCE_NUM_THREADS"))
        if sys.platform == "linux":  # Elsewhere nothing is ever pinned.
            assert compiled.get_property("ENABLE_CPU_PINNING") is pinned
        vectors.append(vectors_of(model.backend, TEXTS).tobytes())
    assert vectors[0] == vectors[1]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_weights_that_changed_since_they_were_hashed_are_refused(
    tiny_encoder: Path, tmp_path: Path, backend: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_encoder, tmp_path / "checkpoint-last")
    found = Weights.of("checkpoint-last", folder, tmp_path / "graphs")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"changed while they were loaded[\s\S]*others: model\.safetensors"):
        backend_of(found, backend=backend, precision="fp32")
    assert not list(tmp_path.rglob("*.xml")), "a graph is kept under the name of other weights"
    backend_of(Weights.of("checkpoint-last", folder, tmp_path / "graphs"), backend=backend, precision="fp32")


def test_auto_says_what_it_took_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "computes_in_bf16", lambda device: True)
    taken = choose("auto", "auto", "cpu")
    assert (taken.backend, taken.precision) == ("openvino", "bf16")
    assert "fastest on a CPU" in taken.reason
    assert "computes in" in taken.reason
    assert choose("auto", "auto", "cuda:1").backend == "torch"
    monkeypatch.setattr(choice, "computes_in_bf16", lambda device: False)
    assert choose("auto", "auto", "cpu").precision == "fp32"
    assert choose("torch", "bf16", "cpu").reason == ""
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    without = choose("auto", "auto", "cpu")
    assert without.backend == "torch"
    assert "not installed" in without.reason
    with pytest.raises(ConfigError, match="pip install openvino"):
        choose("openvino", "auto", "cpu")


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [
        *((kind, False) for kind in ("bert", "mpnet", "roberta", "electra", "modernbert", "t5")),
        *((kind, True) for kind in ("qwen3", "mistral", "gemma3_text", "llama", "gpt_neox", "bloom")),
    ],
)
def test_auto_takes_torch_for_a_decoder(weights: Weights, tmp_path: Path, kind: str, decoder: bool) -> None:
    from transformers import AutoConfig

    folder = Path(shutil.copytree(weights.folder, tmp_path / "model"))
    AutoConfig.for_model(kind).save_pretrained(folder)
    assert is_decoder(folder) is decoder
    model = FrozenModel(Weights.of(kind, folder, tmp_path), EncodeConfig(device="cpu"))
    assert model.choice.backend == ("torch" if decoder else "openvino")
    assert ("the model is a decoder" in model.choice.reason) is decoder
    assert choose("openvino", "fp32", "cpu", decoder=decoder).backend == "openvino", "who asks for it gets it"


def test_bf16_is_taken_only_on_a_gpu_that_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    current = [0]

    class OnDevice:
        """As ``torch.cuda.device``, on a machine where the second GPU only emulates bf16."""

        def __init__(self, device: str) -> None:
            self.index = torch.device(device).index or 0

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *raised: object) -> None:
            current.pop()

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or current[-1] == 0

    monkeypatch.setattr(torch.cuda, "device", OnDevice)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose("auto", "auto", "cuda").precision == "bf16"
    assert choose("auto", "auto", "cuda:0").precision == "bf16"
    assert choose("auto", "auto", "cuda:1").precision == "fp32"
    assert current == [0]


def test_openvino_leaves_the_gpus_of_a_machine_alone(
    weights: Weights, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = EncodeConfig(backend="openvino", precision="fp32")
    assert FrozenModel(weights, config).config.device == "cpu"
    assert isinstance(open_engine(EngineConfig(), weights, config, home), LocalEngine), "one process, none for a GPU"
    torch_config = EncodeConfig(backend="torch", precision="fp32")
    assert FrozenModel(weights, torch_config).config.device == "cuda:0"
    with pytest.raises(ConfigError, match=r"unknown backend on cuda"):
        FrozenModel(weights, config.model_copy(update={"device": "cuda:1"}))


@pytest.mark.parametrize(
    ("backend", "precision", "device", "message"),
    [
        ("openvino", "auto", "cuda", r"unknown backend on cuda[\s\S]*torch"),
        ("auto", "fp16", "cpu", "precision of torch on cpu"),
        ("torch", "int8", "cpu", "precision of torch on cpu"),
        ("auto", "int8", "cuda", "precision of torch on cuda"),
    ],
)
def test_what_does_not_go_together_is_refused(backend: str, precision: str, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(backend, precision, device)


def test_backend_is_part_of_the_spec_and_auto_takes_what_is_cached(
    home: Home, tiny_collection, tiny_encoder: Path
) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)

    def encode(**settings_: str) -> list[tuple[Path, int]]:
        config = EncodeConfig.model_validate({"model": str(tiny_encoder), "device": "cpu", **settings_})
        return [(report.folder, report.encoded) for report in encode_collection(collection, home, config)]

    torch_ = encode(backend="torch", precision="fp32")
    assert encode() == [(folder, 0) for folder, _ in torch_]
    openvino = encode(backend="openvino", precision="fp32")
    assert {folder for folder, _ in torch_}.isdisjoint(folder for folder, _ in openvino)
    assert [encoded for _, encoded in openvino] == [70, 120]


def test_int8_is_never_what_auto_takes(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    collection = find_collection("tiny", home)
    for precision, encoded in (("int8", [70, 120]), ("auto", [70, 120]), ("int8", [0, 0])):
        config = EncodeConfig.model_validate({"model": str(tiny_encoder), "device": "cpu", "precision": precision})
        assert [report.encoded for report in encode_collection(collection, home, config)] == encoded


def test_libraries_that_convert_a_model_stay_silent(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    """A process of its own, as libraries keep the stdout that they first saw."""
    options = ["--model", str(tiny_encoder), "--backend", "openvino", "--precision", "int8", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "ragcun_cache", "encode", "--dataset", str(tiny_collection()), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"RAGCUN_HOME": str(home.root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(report["rows"] for report in json.loads(done.stdout)) == 70 + 120
    assert [line for line in done.stderr.splitlines() if not line.startswith(("encode ", "  "))] == []
