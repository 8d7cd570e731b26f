"""The trainable maps that heads are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ragcun_cache.heads.config import HeadConfig, Init, InputScale


def _mlp(in_dim: int, hidden_dim: int, out_dim: int, dropout: float, *, zero_last: bool = False) -> nn.Sequential:
    """Linear, GELU, dropout, Linear, with PyTorch's default initialisation: uniform within 1 / sqrt(fan in)."""
    last = nn.Linear(hidden_dim, out_dim)
    if zero_last:
        _zero(last)
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), last)


def _as_input(module: nn.Module, x_bd: Tensor) -> Tensor:
    """Return ``module(x_bd)`` in the dtype of ``x_bd``: under autocast it would be bfloat16."""
    y_be: Tensor = module(x_bd)
    return y_be.to(x_bd.dtype)


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


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
        y_be = _as_input(self.mlp, x_bd) if self.scale == 1.0 else _as_input(self.mlp, x_bd * self.scale) / self.scale
        return x_bd + y_be if self.residual else y_be

    def scaled(self, x_bd: Tensor) -> Tensor:
        """Map (b, d) to ``s y`` (b, e), the units that losses work in."""
        y_be: Tensor = self(x_bd)
        return y_be if self.scale == 1.0 else y_be * self.scale


class Predictor(nn.Module):
    """Predicts a passage's output from its query's: Linear to 2e, GELU, dropout, Linear to e. Used in training only.

    With one layer it is a Linear alone. With ``predictor_init: identity`` it is ``z + f(z)`` with a zero last layer: it
    begins by predicting that a passage lies where its query does, which is true of the encoder. One that begins at
    random has to be learnt first, and meanwhile pulls the projection to where its guesses are.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.residual = config.predictor_init == Init.IDENTITY
        dim = config.out_dim
        self.mlp: nn.Module
        if config.predictor_layers == 1:
            self.mlp = nn.Linear(dim, dim)
            if self.residual:
                _zero(self.mlp)
        else:
            self.mlp = _mlp(dim, 2 * dim, dim, config.dropout, zero_last=self.residual)

    def forward(self, z_be: Tensor) -> Tensor:
        """Map (b, e) to (b, e)."""
        y_be = _as_input(self.mlp, z_be)
        return z_be + y_be if self.residual else y_be


def make_predictor(config: HeadConfig) -> nn.Module:
    """Return the predictor of ``config``; one of no layers predicts that a passage lies where its query does."""
    return Predictor(config) if config.predictor_layers else nn.Identity()


class ResidualPredictor(nn.Module):
    """``z + alpha delta`` with ``delta = tanh(MLP(z))`` and a learnt scalar alpha, from 0.1. Used in training only.

    Source: ``respred_model.py`` of ctn/ragcun. ``residual_tanh: false`` leaves out the tanh.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.mlp = _mlp(config.out_dim, 2 * config.out_dim, config.out_dim, config.dropout)
        self.tanh = config.residual_tanh
        self.alpha = nn.Parameter(torch.tensor(0.1))

    def forward(self, z_be: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, e) to the prediction (b, e), and the ``delta`` (b, e) in it."""
        delta_be = _as_input(self.mlp, z_be)
        if self.tanh:
            delta_be = delta_be.tanh()
        return z_be + self.alpha * delta_be, delta_be
