"""The trainable maps that heads are made of."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig, Init, InputScale


def _mlp(in_dim: int, hidden_dim: int, out_dim: int, dropout: float, *, zero_last: bool = False) -> nn.Sequential:
    """Linear, GELU, dropout, Linear, with PyTorch's default initialisation: uniform within 1 / sqrt(fan in)."""
    last = nn.Linear(hidden_dim, out_dim)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), last)


class Projection(nn.Module):
    """``y = MLP(s x) / s``, or ``y = x + MLP(s x) / s`` when it starts at the identity; the hidden layer has 2d units.

    ``s`` is 1, or sqrt(d) with ``input_scale: sqrt_dim``. Losses look at ``s y`` (times ``scale``), so learning
    happens in the scaled units, while ``y`` stays bit for bit ``x`` as long as the last layer is zero.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.residual = config.init == Init.IDENTITY
        self.scale = math.sqrt(config.in_dim) if config.input_scale == InputScale.SQRT_DIM else 1.0
        self.mlp = _mlp(config.in_dim, 2 * config.in_dim, config.out_dim, config.dropout, zero_last=self.residual)

    def forward(self, x_bd: Tensor) -> Tensor:
        """Map (b, d) to (b, e)."""
        y_be: Tensor = self.mlp(x_bd) if self.scale == 1.0 else self.mlp(x_bd * self.scale) / self.scale
        return x_bd + y_be if self.residual else y_be


class Predictor(nn.Module):
    """Predicts a passage's output from its query's: Linear to 2e, GELU, dropout, Linear to e. Used in training only.

    With ``predictor_init: identity`` it is ``z + MLP(z)`` with a zero last layer: it begins by predicting that a
    passage lies where its query does, which is true of the encoder. One that begins at random has to be learnt first,
    and meanwhile pulls the projection to where its guesses are.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.residual = config.predictor_init == Init.IDENTITY
        dim = config.out_dim
        self.mlp = _mlp(dim, 2 * dim, dim, config.dropout, zero_last=self.residual)

    def forward(self, z_be: Tensor) -> Tensor:
        """Map (b, e) to (b, e)."""
        y_be: Tensor = self.mlp(z_be)
        return z_be + y_be if self.residual else y_be
