"""Training of adapters on cached vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ragcun_cache.adapters.config import AdapterConfig, Loss
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.negatives import mine_negatives, unjudged_duplicates
from ragcun_cache.errors import TrainingError
from ragcun_cache.heads.adapter import AdapterHead
from ragcun_cache.heads.config import Side
from ragcun_cache.heads.registry import build_head
from ragcun_cache.objectives.corpus_softmax import Targets, corpus_softmax_loss
from ragcun_cache.objectives.ranking import listwise_loss, margin_loss, weighted_pairwise_loss


def train_adapter(
    config: AdapterConfig,
    judgements: Judgements,
    query_md: Tensor,
    corpus_nd: Tensor,
    *,
    keep: Collection[int] = (),
) -> dict[int, AdapterHead]:
    """Return the adapter after each epoch in ``keep``, and after the last; 0 is the identity.

    Args:
        config: how to train; its seed decides everything that is random.
        judgements: what the queries should find.
        query_md: (m, d) float32 unit rows, one for each query of ``judgements``.
        corpus_nd: (n, d) unit rows, float16 or float32.
        keep: numbers of epochs.

    Raises:
        TrainingError: there is nothing to learn from, or the loss is not finite.

    """
    useful = np.flatnonzero(np.diff(judgements.start_m1))
    if not len(useful):
        raise TrainingError("no query has a relevant passage in the corpus", found=f"{len(judgements)} queries")
    found, query_md = judgements.take(useful), query_md[torch.from_numpy(useful)]
    head = build_head(config.head_config(query_md.shape[1]), seed=config.seed)
    assert isinstance(head, AdapterHead)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        batch_loss = _batch_loss(config, head, found, query_md, corpus_nd)
        return _run(config, head, batch_loss, len(found), {*keep, config.epochs})


def _run(
    config: AdapterConfig, head: AdapterHead, batch_loss: Callable[[Tensor], Tensor], n_queries: int, keep: set[int]
) -> dict[int, AdapterHead]:
    optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
    kept = {0: head.mixed(1.0)} if 0 in keep else {}
    for epoch in range(1, config.epochs + 1):
        for chosen_b in torch.split(torch.randperm(n_queries), config.batch_size):
            loss = batch_loss(chosen_b) + config.identity_weight * head.departure()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if not bool(loss.isfinite()):
            raise TrainingError("the loss of an adapter is not finite", where=f"epoch {epoch}", found=loss.item())
        if epoch in keep:
            kept[epoch] = head.mixed(1.0)
    return kept


def uses_whole_corpus(config: AdapterConfig, n_passages: int) -> bool:
    """Return whether every passage is a negative; otherwise negatives are mined."""
    return config.loss == Loss.SOFTMAX and config.shape.side == Side.QUERY and n_passages <= config.full_corpus_rows


def _batch_loss(
    config: AdapterConfig, head: AdapterHead, judgements: Judgements, query_md: Tensor, corpus_nd: Tensor
) -> Callable[[Tensor], Tensor]:
    if not uses_whole_corpus(config, len(corpus_nd)):
        return _candidate_loss(config, head, judgements, query_md, corpus_nd)
    duplicates = unjudged_duplicates(corpus_nd, judgements, config.duplicate)

    def loss(chosen_b: Tensor) -> Tensor:
        batch = judgements.take(chosen_b.numpy())
        masked = [duplicates[query] for query in chosen_b.tolist()]
        targets = Targets(
            torch.from_numpy(batch.owner_j),
            torch.from_numpy(batch.passage_j),
            torch.from_numpy(batch.share_j(graded=config.graded)),
            torch.repeat_interleave(torch.tensor([len(rows) for rows in masked])),
            torch.cat(masked),
        )
        moved_bd = normalize(head.encode_query(query_md[chosen_b]), dim=1)
        return corpus_softmax_loss(moved_bd, corpus_nd, targets, config.temperature)

    return loss


def _candidate_loss(
    config: AdapterConfig, head: AdapterHead, judgements: Judgements, query_md: Tensor, corpus_nd: Tensor
) -> Callable[[Tensor], Tensor]:
    """Compare each query with the relevant passages of the whole batch and with its own hard negatives.

    A passage that is relevant to another query of the batch is a negative, unless it is a duplicate of one's own.
    """
    row_mc, negative_mc = mine_negatives(query_md, corpus_nd, judgements, config.hard_negatives, config.duplicate)

    def loss(chosen_b: Tensor) -> Tensor:
        batch = judgements.take(chosen_b.numpy())
        relevant_p, place_j = torch.unique(torch.from_numpy(batch.passage_j), return_inverse=True)
        owner_j, grade_j = torch.from_numpy(batch.owner_j), torch.from_numpy(batch.grade_j)
        grade_bp = torch.zeros(len(chosen_b), len(relevant_p))
        grade_bp[owner_j, place_j] = grade_j if config.graded else torch.ones_like(grade_j)
        relevant_pd = corpus_nd[relevant_p].float()
        alike_bp = (grade_bp > 0).float() @ (relevant_pd @ relevant_pd.T >= config.duplicate).float() > 0
        present_bp = (grade_bp > 0) | ~alike_bp
        hard_bcd = corpus_nd[row_mc[chosen_b]].float()

        query_bd = normalize(head.encode_query(query_md[chosen_b]), dim=1)
        score_bp = query_bd @ normalize(head.encode_passage(relevant_pd), dim=1).T
        moved_bcd = normalize(head.encode_passage(hard_bcd.flatten(0, 1)), dim=1).view_as(hard_bcd)
        score_bc = torch.einsum("bd,bcd->bc", query_bd, moved_bcd)

        score = torch.cat([score_bp, score_bc], dim=1)
        grade = torch.cat([grade_bp, torch.zeros_like(score_bc)], dim=1)
        present = torch.cat([present_bp, negative_mc[chosen_b]], dim=1)
        if config.loss == Loss.MARGIN:
            return margin_loss(score, grade, present, config.margin)
        ranking_loss = weighted_pairwise_loss if config.loss == Loss.PAIRWISE else listwise_loss
        return ranking_loss(score / config.temperature, grade, present)

    return loss
