"""A transformer as OpenVINO's graph: converted once, kept on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ragcun_cache.encoder.int8 import round_linear_layers
from ragcun_cache.encoder.quiet import quiet_transformers, root_logger_kept
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.files import make_folder, sha256_file, sha256_json, sync_folder, sync_tree, write_json
from ragcun_cache.provenance import library_versions

if TYPE_CHECKING:
    from torch import nn

GRAPH_NAME = "transformer.xml"
_FILES = (GRAPH_NAME, "transformer.bin")
_CHECKSUMS_NAME = "sha256.json"
_VERSIONS = ("openvino", "torch", "transformers", "sentence-transformers")
_KEY_DIGITS = 16


def transformer_graph(weights: Weights, transformer: nn.Module, *, int8: bool) -> Path:
    """Return the graph of ``transformer``, converting it if there is none yet or its bytes have changed.

    Args:
        weights: the model that it belongs to; its files and the libraries' versions name the graph.
        transformer: a sentence-transformers Transformer, on the CPU.
        int8: with its linear layers in int8 (:mod:`ragcun_cache.encoder.int8`), all else in float32.

    Raises:
        EncoderError: OpenVINO cannot convert the model, its weights have changed since they were hashed, or the disk is
            full.
    """
    versions = {name: version for name, version in library_versions().items() if name in _VERSIONS}
    configs = {
        path.relative_to(weights.folder).as_posix(): sha256_file(path)
        for path in sorted(weights.folder.rglob("config.json"))
    }
    key = sha256_json({"weights": weights.sha256, "configs": configs, "versions": versions})[:_KEY_DIGITS]
    folder = weights.graphs / f"{weights.model_id.replace('/', '__')}-{'int8' if int8 else 'fp32'}-{key}"
    if not _is_sound(folder):
        graph = _convert(weights, transformer)
        weights.check_unchanged()  # A graph of others would be kept under the name of these.
        _publish(round_linear_layers(graph) if int8 else graph, folder)
    return folder / GRAPH_NAME


def _is_sound(folder: Path) -> bool:
    """Whether the graph is there with the bytes that were written; no checksum in a spec stands for them."""
    try:
        recorded = json.loads((folder / _CHECKSUMS_NAME).read_bytes())
        return bool(recorded == {name: sha256_file(folder / name) for name in _FILES})
    except (OSError, ValueError):
        return False


def _publish(graph: Any, folder: Path) -> None:
    """Write an ``openvino.Model`` into ``folder``, which is there afterwards with all its files or not at all.

    What may lie there is damaged, or without checksums, and is replaced, unless another process was faster.
    """
    try:
        make_folder(folder.parent)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_sound(folder):
                _replace(graph, folder)
    except (OSError, RuntimeError) as error:
        raise EncoderError("the converted model cannot be written", where=folder, found=error) from error


def _replace(graph: Any, folder: Path) -> None:
    import openvino

    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    try:
        for left in (partial, old):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        # fp16 weights would be rounded twice on their way to bf16.
        openvino.save_model(graph, partial / GRAPH_NAME, compress_to_fp16=False)
        write_json(partial / _CHECKSUMS_NAME, {name: sha256_file(partial / name) for name in _FILES})
        sync_tree(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        sync_folder(folder.parent)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def _convert(weights: Weights, transformer: nn.Module) -> Any:
    import warnings

    import openvino
    import torch

    class Plain(torch.nn.Module):
        """The transformer with tensors in and a tensor out, as a converter wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            token_embeddings: torch.Tensor = self.transformer(features)["token_embeddings"]
            return token_embeddings

    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    try:
        with warnings.catch_warnings(), quiet_transformers(), root_logger_kept(), torch.no_grad():
            warnings.simplefilter("ignore")  # The tracer warns of every Python branch in the model.
            return openvino.convert_model(Plain().eval(), example_input=example)
    except Exception as error:  # The converter raises whatever the model's own code raises.
        raise EncoderError(
            "OpenVINO cannot convert this model",
            where=weights.folder,
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="encode with --backend torch",
        ) from error
