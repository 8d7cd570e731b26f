"""The predictive (JEPA) objective: a query's output should predict its passage's output."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss


def predictive_loss(prediction_be: Tensor, target_be: Tensor) -> Tensor:
    """Return the mean over all entries of ``(prediction - target)^2``, a scalar.

    ``prediction_be`` is P(z_query) and ``target_be`` the target's output for the judged passage, both (b, e). Whether
    gradients flow into the target is the caller's choice.
    Source: I-JEPA (arXiv 2301.08243, equation 1) with the mean in place of the sum, as ctn/ragcun trained with.
    """
    return mse_loss(prediction_be, target_be)


def predictive_cosine_loss(prediction_be: Tensor, target_be: Tensor) -> Tensor:
    """Return the mean over rows of ``1 - cos(prediction, target)``, a scalar: it does not feel scale.

    Source: SimSiam (arXiv 2011.10566, equation 1), shifted by one so that 0 is its minimum.
    """
    return 1.0 - cosine_similarity(prediction_be, target_be, dim=1).mean()
