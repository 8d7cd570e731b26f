"""The predictive (JEPA) objective: a query's output should predict its passage's output."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss


def predictive_loss(prediction_be: Tensor, target_be: Tensor) -> Tensor:
    """Return the mean over all entries of ``(prediction - stop_gradient(target))^2``, a scalar.

    ``prediction_be`` is P(z_query) and ``target_be`` the target's output for the judged passage, both (b, e).
    Source: I-JEPA (arXiv 2301.08243, equation 1) with the mean in place of the sum, as ctn/ragcun trained with.
    """
    return mse_loss(prediction_be, target_be.detach())
