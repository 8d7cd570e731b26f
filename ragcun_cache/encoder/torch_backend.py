"""The forward pass through torch, on a CPU or a GPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.backend import OutOfMemory
from ragcun_cache.encoder.modules import Modules
from ragcun_cache.encoder.tokens import Tokens

# Measured on two cores: a batch whose activations leave the cache is slower, not faster. A GPU wants to be filled.
_CPU_BATCH_TOKENS = 1_280
_GPU_BATCH_TOKENS = 65_536
# What is no torch.OutOfMemoryError: of Apple's GPUs, and of cuBLAS where there is no room for its workspace.
_OUT_OF_MEMORY = re.compile(r"out of memory|invalid buffer size|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)


class TorchBackend:
    """A sentence-transformers model: its transformer in the precision asked for, what follows it in float32."""

    def __init__(self, folder: Path, *, device: str, precision: str, max_seq_length: int) -> None:
        """Load the model. ``precision`` is fp32, bf16 or fp16."""
        import torch

        self._torch = torch
        self._modules = Modules(folder, device=device, max_seq_length=max_seq_length, precision=precision)
        self._transformer = self._modules.transformer
        self.batch_tokens = _CPU_BATCH_TOKENS if device == "cpu" else _GPU_BATCH_TOKENS
        self.dim = self._modules.dim

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the token ids of each text, cut to the model's length, and which were cut."""
        return self._modules.tokenise(texts)

    def embed(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode one batch of token ids, each padded to ``length`` tokens.

        Returns:
            (b, dim) float32 unit vectors, and (b,) float32 norms that they had before they were normalised.

        Raises:
            OutOfMemory: the batch does not fit in the device's memory.
        """
        try:
            with self._torch.inference_mode():
                return self._modules.pool(self._transformer(self._modules.pad(input_ids, length)))
        except RuntimeError as error:
            if isinstance(error, self._torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory from None
            raise
