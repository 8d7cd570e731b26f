"""The forward pass through sentence-transformers and torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.backend import OutOfMemory
from ragcun_cache.encoder.tokens import Tokeniser, Tokens
from ragcun_cache.errors import EncoderError, unknown_choice

# Measured on two cores: a batch whose activations leave the cache is slower, not faster. A GPU wants to be filled.
_CPU_BATCH_TOKENS = 1_280
_GPU_BATCH_TOKENS = 65_536


def resolve_precision(precision: str, device: str) -> Literal["fp32", "bf16", "fp16"]:
    """Return the precision asked for on ``device``; ``auto`` takes bf16 where the chip computes in it.

    Raises:
        ConfigError: fp16 on a CPU, which would compute it in fp32 by detours.
    """
    import torch

    kind = device.partition(":")[0]
    if precision == "auto":
        if kind == "cpu":
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        else:
            fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16" if fast else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise unknown_choice("precision on a CPU", precision, ["auto", "fp32", "bf16"])
    if precision in ("fp32", "bf16", "fp16"):
        return precision  # type: ignore[return-value]
    raise unknown_choice("precision", precision, ["auto", "fp32", "bf16", "fp16"])


class TorchBackend:
    """A sentence-transformers model: its transformer in the precision asked for, what follows it in float32.

    Pooling and normalising in bf16 would cost ten times more accuracy than the transformer's bf16 does.
    """

    def __init__(self, folder: Path, *, device: str, precision: str, max_seq_length: int) -> None:
        """Load the model, frozen, from local files only and without remote code."""
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch = torch
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.device = device
        self.model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        ).eval()
        self.model.requires_grad_(False)
        self.model.max_seq_length = max_seq_length
        self._tokeniser = Tokeniser(self.model.tokenizer, max_seq_length)
        self._transformer = self.model[0].to(self._dtype)
        self._rest = [self.model[index] for index in range(1, len(self.model))]
        # Vectors are normalised here in any case, and the norm from before is kept.
        if self._rest and type(self._rest[-1]).__name__ == "Normalize":
            self._rest.pop()
        self.batch_tokens = _CPU_BATCH_TOKENS if device == "cpu" else _GPU_BATCH_TOKENS
        self.dim = self._dim()

    def _dim(self) -> int:
        dim = self.model.get_embedding_dimension()
        if dim is None:
            raise EncoderError("the model does not say how many dimensions its vectors have", found=self.model)
        return int(dim)

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the token ids of each text, cut to the model's length, and which were cut."""
        return self._tokeniser(texts)

    def embed(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode one batch of token ids, each padded to ``length`` tokens.

        Returns:
            (b, dim) float32 unit vectors, and (b,) float32 norms that they had before they were normalised.

        Raises:
            OutOfMemory: the batch does not fit in the device's memory.
        """
        try:
            return self._forward(input_ids, length)
        except self._torch.OutOfMemoryError:
            raise OutOfMemory from None

    def _forward(self, input_ids: list[list[int]], length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        torch = self._torch
        with torch.inference_mode():
            features = dict(
                self.model.tokenizer.pad(
                    {"input_ids": input_ids}, padding="max_length", max_length=length, return_tensors="pt"
                ).to(self.device)
            )
            features = self._transformer(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in self._rest:
                features = module(features)
            pooled_bd = features["sentence_embedding"].float()
            norm_b = torch.linalg.vector_norm(pooled_bd, dim=1)
            unit_bd = pooled_bd / norm_b.clamp_min(1e-12)[:, None]
        return unit_bd.cpu().numpy(), norm_b.cpu().numpy()
