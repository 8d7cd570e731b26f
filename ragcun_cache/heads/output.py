"""What becomes of a head's outputs once it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig


class Standardize(nn.Module):
    """``(y - mean) / std`` in each dimension, of outputs that it was shown; before that it changes nothing."""

    mean_e: Tensor
    std_e: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.register_buffer("mean_e", torch.zeros(config.out_dim))
        self.register_buffer("std_e", torch.ones(config.out_dim))

    @torch.no_grad()
    def fit(self, y_ne: Tensor) -> None:
        """Take mean and standard deviation from the rows (n, e), n >= 2. A dimension that is constant stays so."""
        # On the CPU, because the GPUs of Apple have no float64.
        std_e, mean_e = torch.std_mean(y_ne.cpu().double(), dim=0)
        self.mean_e.copy_(mean_e.float())
        self.std_e.copy_(torch.where(std_e > 0, std_e, 1.0).float())

    def forward(self, y_be: Tensor) -> Tensor:
        """Map (b, e) to (b, e)."""
        return (y_be - self.mean_e) / self.std_e
