"""The most that this machine's matrix multiplication reaches, and how much of it an encode needs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIZES = ((1280, 768, 3072), (1280, 3072, 768), (4096, 4096, 4096))
_SECONDS = 1.5


def matmul_peak(precision: str) -> float:
    """Return the best rate, in GFLOP/s, of torch's linear layer over several sizes, the encoder's own among them."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for rows, inner, columns in _SIZES:
        x_ri, w_ci = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        torch.nn.functional.linear(x_ri, w_ci)
        started = time.perf_counter()
        while time.perf_counter() - started < _SECONDS:
            lap = time.perf_counter()
            torch.nn.functional.linear(x_ri, w_ci)
            best = max(best, 2e-9 * rows * inner * columns / (time.perf_counter() - lap))
    return best


def encoder_gflop(config: dict[str, Any], n_tokens: NDArray[np.int32]) -> float:
    """Return the GFLOP of the matrix products that texts of so many tokens need, padding not counted.

    A layer of width d and inner width f has 4 d² + 2 d f weights, each of them two operations a token; attention over n
    tokens takes 4 n d operations a token more. Embeddings, norms and activations are not counted.

    Args:
        config: the transformer's ``config.json``.
        n_tokens: (texts,) tokens of each text.
    """
    d, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    n = n_tokens.astype(np.float64)
    return float(1e-9 * layers * np.sum(n * (2 * (4 * d * d + 2 * d * f) + 4 * n * d)))
