"""A transformer as OpenVINO's graph: converted once, kept on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragcun_cache.encoder.quiet import quiet_nncf, quiet_transformers
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.files import sha256_file, sha256_json, sync_folder
from ragcun_cache.provenance import library_versions

if TYPE_CHECKING:
    from torch import nn

GRAPH_NAME = "transformer.xml"
_VERSIONS = ("openvino", "nncf", "torch", "transformers", "sentence-transformers")
_KEY_DIGITS = 16


def transformer_graph(weights: Weights, transformer: nn.Module, *, int8: bool) -> Path:
    """Return the graph of ``transformer``, converting it if this model was never converted before.

    Args:
        weights: the model that it belongs to; its files and the libraries' versions name the graph.
        transformer: a sentence-transformers Transformer, on the CPU.
        int8: with int8 weights, symmetric and scaled by output channel, instead of float32.

    Raises:
        EncoderError: OpenVINO cannot convert the model, int8 lacks its package, or the disk is full.
    """
    versions = {name: version for name, version in library_versions().items() if name in _VERSIONS}
    configs = {
        path.relative_to(weights.folder).as_posix(): sha256_file(path)
        for path in sorted(weights.folder.rglob("config.json"))
    }
    key = sha256_json({"weights": weights.sha256, "configs": configs, "versions": versions})[:_KEY_DIGITS]
    folder = weights.graphs / f"{weights.model_id.replace('/', '__')}-{'int8' if int8 else 'fp32'}-{key}"
    if not (folder / GRAPH_NAME).exists():
        graph = _convert(weights, transformer)
        _publish(_with_int8_weights(graph) if int8 else graph, folder)
    return folder / GRAPH_NAME


def _publish(graph: Any, folder: Path) -> None:
    """Write an ``openvino.Model`` into ``folder``, which is there afterwards with all its files or not at all."""
    import openvino

    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        # fp16 weights would be rounded twice on their way to bf16.
        openvino.save_model(graph, partial / GRAPH_NAME, compress_to_fp16=False)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # Else another process was faster; its graph is the same.
                raise
        sync_folder(folder.parent)
    except (OSError, RuntimeError) as error:
        raise EncoderError("the converted model cannot be written", where=folder, found=error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _with_int8_weights(graph: Any) -> Any:
    try:
        import nncf
    except ImportError:
        raise EncoderError("int8 needs the package nncf", fix="pip install 'ragcun-cache[int8]'") from None

    with quiet_nncf():
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)


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
        with warnings.catch_warnings(), quiet_transformers(), torch.no_grad():
            warnings.simplefilter("ignore")  # The tracer warns of every Python branch in the model.
            return openvino.convert_model(Plain().eval(), example_input=example)
    except Exception as error:  # The converter raises whatever the model's own code raises.
        raise EncoderError(
            "OpenVINO cannot convert this model",
            where=weights.folder,
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="encode with --backend torch",
        ) from error
