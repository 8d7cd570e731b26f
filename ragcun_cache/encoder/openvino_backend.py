"""The forward pass through OpenVINO, on a CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.choice import computes_in_bf16
from ragcun_cache.encoder.graph import transformer_graph
from ragcun_cache.encoder.int8 import GROUP
from ragcun_cache.encoder.modules import Modules
from ragcun_cache.encoder.tokens import Tokens
from ragcun_cache.encoder.weights import Weights

_BATCH_TOKENS = 1_280


class OpenvinoBackend:
    """A sentence-transformers model whose transformer is OpenVINO's graph; what follows it runs in torch, in float32.

    In fp32 and bf16 a row's vector is the same bit for bit whatever it is batched with, with any number of threads. In
    int8 it is near the same (kernels are chosen by size), so a resumed encode need not give the bytes of another.
    """

    def __init__(self, weights: Weights, *, precision: str, max_seq_length: int, threads: int | None = None) -> None:
        """Load the model, converting it if that was never done.

        Args:
            weights: the model.
            precision: fp32, bf16, or int8: weights and inputs of linear layers in int8
                (:mod:`ragcun_cache.encoder.int8`), all else in bf16 where the chip computes in it, else in float32.
            max_seq_length: tokens read of each text.
            threads: of the forward pass; None: as many as there are cores that this process may use.

        Raises:
            EncoderError: the model cannot be converted.
        """
        import openvino
        import torch

        self._torch = torch
        self._modules = Modules(weights.folder, device="cpu", max_seq_length=max_seq_length)
        path = transformer_graph(weights, self._modules.transformer, int8=precision == "int8")
        del self._modules.transformer  # OpenVINO has the weights: torch's copy would only take memory.
        half = precision == "bf16" or (precision == "int8" and computes_in_bf16("cpu"))
        core = openvino.Core()
        hints: dict[str, str | int | bool] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
        }
        if threads is not None:
            # Every process would pin its threads to the same first cores.
            hints |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        self._request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()
        self.batch_tokens = _BATCH_TOKENS
        self.dim = self._modules.dim

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the token ids of each text, cut to the model's length, and which were cut."""
        return self._modules.tokenise(texts)

    def embed(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode one batch of token ids, each padded to ``length`` tokens.

        Returns:
            (b, dim) float32 unit vectors, and (b,) float32 norms that they had before they were normalised.
        """
        features = self._modules.pad(input_ids, length)
        found = self._request.infer({name: features[name].numpy() for name in ("input_ids", "attention_mask")})
        token_embeddings = self._torch.from_numpy(found[0])
        with self._torch.inference_mode():
            return self._modules.pool({**features, "token_embeddings": token_embeddings})
