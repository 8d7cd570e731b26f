"""The modules of a sentence-transformers model: what comes before its transformer, the transformer, what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.encoder.quiet import quiet_transformers
from ragcun_cache.encoder.tokens import Tokeniser
from ragcun_cache.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Modules:
    """A frozen model, loaded from local files only and without remote code.

    Attributes:
        tokenise: texts → token ids, cut to the model's length.
        transformer: the first module, in the precision asked for; a backend may run it elsewhere.
        dim: dimensions of a vector.
    """

    def __init__(self, folder: Path, *, device: str, max_seq_length: int, precision: str = "fp32") -> None:
        """Load the model in ``folder``, its transformer in fp32, bf16 or fp16, what follows it in float32.

        The transformer's weights are read in that precision, not converted to it: so they are never held in float32,
        and what the model computes beside them (rotary frequencies) is not rounded.

        Raises:
            EncoderError: it cannot be loaded, or does not say how large its vectors are.
        """
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch = torch
        self._device = device
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        try:
            with quiet_transformers():
                model = SentenceTransformer(
                    str(folder),
                    device=device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": dtype, "use_safetensors": True},
                ).eval()
        except (
            Exception
        ) as error:  # Whatever the libraries raise of a file that is missing, damaged or of another kind.
            raise EncoderError(
                "the model cannot be loaded",
                where=folder,
                expected="all files of a sentence-transformers model that needs no code of its own",
                found=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
            ) from error
        model.requires_grad_(False)
        model.max_seq_length = max_seq_length
        model.truncate_dim = None  # Whole vectors are stored: a shorter one is a slice.
        self._tokenizer = model.tokenizer
        self.tokenise = Tokeniser(model.tokenizer, max_seq_length)
        self.transformer: nn.Module = model[0]
        self._rest: list[nn.Module] = [model[index] for index in range(1, len(model))]
        if dtype != torch.float32:
            self._read_rest(folder)
        # Vectors are normalised here in any case, and the norm from before is kept.
        if self._rest and type(self._rest[-1]).__name__ == "Normalize":
            self._rest.pop()
        dim = model.get_embedding_dimension()
        if dim is None:
            raise EncoderError("the model does not say how many dimensions its vectors have", where=folder)
        self.dim = int(dim)

    def _read_rest(self, folder: Path) -> None:
        """Read the weights of what follows the transformer once more: the library rounded them as the transformer's."""
        from safetensors.torch import load_model

        entries = json.loads((folder / "modules.json").read_bytes())
        for entry, module in zip(entries[1:], self._rest, strict=True):
            if any(True for _ in module.parameters()):
                load_model(module.float(), folder / entry["path"] / "model.safetensors")

    def pad(self, input_ids: list[list[int]], length: int) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, (b, length) int64 on the device."""
        padded = self._tokenizer.pad(
            {"input_ids": input_ids}, padding="max_length", max_length=length, return_tensors="pt"
        )
        return dict(padded.to(self._device))

    def pool(self, features: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run what follows the transformer, in float32.

        Pooling and normalising in bf16 would cost ten times more accuracy than the transformer's bf16 does.

        Args:
            features: what ``pad`` returned, and ``token_embeddings``, (b, length, hidden), of any dtype.

        Returns:
            (b, dim) float32 unit vectors, and (b,) float32 norms that they had before they were normalised.
        """
        torch = self._torch
        features = {**features, "token_embeddings": features["token_embeddings"].float()}
        for module in self._rest:
            features = module(features)
        pooled_bd = features["sentence_embedding"].float()
        norm_b = torch.linalg.vector_norm(pooled_bd, dim=1)
        unit_bd = pooled_bd / norm_b.clamp_min(1e-12)[:, None]
        return unit_bd.cpu().numpy(), norm_b.cpu().numpy()
