"""From the outputs for a batch of pairs to the loss terms that an architecture learns by."""

from __future__ import annotations

import torch
from torch import Tensor

from ragcun_cache.heads.config import Contrastive, HeadConfig, Isotropy, Predictive, Term
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.objectives.contrastive import infonce_loss, triplet_loss
from ragcun_cache.objectives.isotropy import isotropy_loss
from ragcun_cache.objectives.predictive import predictive_cosine_loss, predictive_loss
from ragcun_cache.objectives.sigreg import sigreg_loss
from ragcun_cache.objectives.similarity import batch_scores
from ragcun_cache.objectives.variance import variance_loss


def _isotropy(config: HeadConfig, z_ne: Tensor, step: int) -> Tensor:
    if config.isotropy == Isotropy.SIGREG:
        return sigreg_loss(z_ne, step=step)
    if len(z_ne) < 2:
        return 0.0 * z_ne.sum()  # One row has no covariance.
    return isotropy_loss(z_ne, scale_free=config.isotropy == Isotropy.SCALE_FREE)


def predictive_term(config: HeadConfig, prediction_be: Tensor, target_be: Tensor) -> Tensor:
    """Return the predictive loss in the form that ``config`` asks for; the target gets no gradient if it says so."""
    target_be = target_be.detach() if config.stop_gradient else target_be
    form = predictive_cosine_loss if config.predictive == Predictive.COSINE else predictive_loss
    return form(prediction_be, target_be)


def contrastive_term(config: HeadConfig, batch: PairBatch, z_query_be: Tensor, z_passage_be: Tensor) -> Tensor:
    """Return the contrastive loss of the batch in the form that ``config`` asks for."""
    score_bb = batch_scores(z_query_be, z_passage_be, config.contrastive_similarity)
    if config.contrastive == Contrastive.TRIPLET:
        return triplet_loss(score_bb, batch.negatives(), config.margin)
    return infonce_loss(score_bb, batch.negatives(), config.temperature)


def shared_terms(
    config: HeadConfig, batch: PairBatch, z_query_be: Tensor, z_passage_be: Tensor, step: int, *, one_space: bool = True
) -> dict[str, Tensor]:
    """Return the terms that look at the outputs alone, those of them that ``config`` has a weight for.

    Isotropy is that of queries and passages together, or the mean of both unless they are in ``one_space``. Then that
    of a batch of one pair is 0 in the forms that look at covariance.
    """
    terms: dict[str, Tensor] = {}
    z_ne = torch.cat([z_query_be, z_passage_be])
    if Term.ISOTROPY in config.terms and one_space:
        terms[Term.ISOTROPY] = _isotropy(config, z_ne, step)
    elif Term.ISOTROPY in config.terms:
        terms[Term.ISOTROPY] = (_isotropy(config, z_query_be, step) + _isotropy(config, z_passage_be, step)) / 2
    if Term.CONTRASTIVE in config.terms:
        terms[Term.CONTRASTIVE] = contrastive_term(config, batch, z_query_be, z_passage_be)
    if Term.VARIANCE in config.terms:
        terms[Term.VARIANCE] = variance_loss(z_ne)
    return terms
