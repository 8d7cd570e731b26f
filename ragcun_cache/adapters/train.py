"""Training of adapters on cached vectors."""

from __future__ import annotations

import math
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

# Relevant passages of a query in one list. Pairs of a list are compared, so its length counts by its square.
_DRAWN = 16


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
    """Compare each query with its hard negatives and with its relevant passages, of which 16 at most are drawn.

    The softmax has passages drawn at random besides.
    """
    row_mc, negative_mc = mine_negatives(query_md, corpus_nd, judgements, config.hard_negatives, config.duplicate)
    relevant_mp, grade_mp = _padded(judgements)
    softmax = config.loss == Loss.SOFTMAX
    drawn = _DrawnNegatives(config, head, judgements, row_mc, corpus_nd) if softmax and config.drawn_negatives else None

    def loss(chosen_b: Tensor) -> Tensor:
        # Places without a passage have the grade 0, and lie behind all others by this key.
        key_bp = torch.rand(grade_mp[chosen_b].shape) + (grade_mp[chosen_b] > 0)
        drawn_bp = key_bp.topk(min(_DRAWN, key_bp.shape[1]), dim=1).indices
        grade_bp = grade_mp[chosen_b].gather(1, drawn_bp)
        row_bc = torch.cat([relevant_mp[chosen_b].gather(1, drawn_bp), row_mc[chosen_b]], dim=1)
        present_bc = torch.cat([grade_bp > 0, negative_mc[chosen_b]], dim=1)
        grade_bp = grade_bp if config.graded else (grade_bp > 0).float()
        grade_bc = torch.cat([grade_bp, torch.zeros(negative_mc[chosen_b].shape)], dim=1)

        query_bd = normalize(head.encode_query(query_md[chosen_b]), dim=1)
        passage_kd = head.encode_passage(corpus_nd[row_bc.flatten()].float())
        passage_bcd = normalize(passage_kd, dim=1).view(*row_bc.shape, -1)
        score_bc = torch.einsum("bd,bcd->bc", query_bd, passage_bcd)
        if config.loss == Loss.MARGIN:
            return margin_loss(score_bc, grade_bc, present_bc, config.margin)
        score_bc = score_bc / config.temperature
        if config.loss == Loss.PAIRWISE:
            return weighted_pairwise_loss(score_bc, grade_bc, present_bc)
        if drawn is not None:
            score_bn, present_bn = drawn.scores(chosen_b, query_bd)
            score_bc, present_bc = torch.cat([score_bc, score_bn], dim=1), torch.cat([present_bc, present_bn], dim=1)
            grade_bc = torch.cat([grade_bc, torch.zeros_like(score_bn)], dim=1)
        return listwise_loss(score_bc, grade_bc, present_bc)

    return loss


class _DrawnNegatives:
    """Passages drawn at random that stand in a softmax for all that are neither relevant nor among the mined.

    Of N passages n are drawn, with replacement. Their exponentials, but for those of relevant and mined ones, times
    N / n add up on average to those of the whole corpus: the factor is added to the scores, as its logarithm. The
    correction for the chance of being drawn is that of sampled softmax (Jean et al., arXiv 1412.2007).
    """

    def __init__(
        self, config: AdapterConfig, head: AdapterHead, judgements: Judgements, mined_mc: Tensor, corpus_nd: Tensor
    ) -> None:
        self._config, self._head, self._corpus_nd = config, head, corpus_nd
        relevant_j = torch.from_numpy(judgements.owner_j * len(corpus_nd) + judgements.passage_j)
        mined_mc = torch.arange(len(mined_mc))[:, None] * len(corpus_nd) + mined_mc
        self._known = torch.unique(torch.cat([relevant_j, mined_mc.flatten()]))

    def scores(self, chosen_b: Tensor, query_bd: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores over the temperature, (b, n), and which of them count for which query, (b, n)."""
        rows = len(self._corpus_nd)
        row_n = torch.randint(rows, (min(self._config.drawn_negatives, rows),))
        passage_nd = normalize(self._head.encode_passage(self._corpus_nd[row_n].float()), dim=1)
        number_bn = chosen_b[:, None] * rows + row_n
        place_bn = torch.searchsorted(self._known, number_bn).clamp_(max=len(self._known) - 1)
        score_bn = query_bd @ passage_nd.T / self._config.temperature + math.log(rows / len(row_n))
        return score_bn, self._known[place_bn] != number_bn


def _padded(judgements: Judgements) -> tuple[Tensor, Tensor]:
    """Return the relevant passages of each query (m, p) int64 and their grades (m, p), 0 where there are fewer."""
    place_j = np.arange(len(judgements.passage_j)) - judgements.start_m1[judgements.owner_j]
    shape = (len(judgements), int(place_j.max()) + 1)
    row_mp, grade_mp = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    at = torch.from_numpy(judgements.owner_j), torch.from_numpy(place_j)
    row_mp[at] = torch.from_numpy(judgements.passage_j)
    grade_mp[at] = torch.from_numpy(judgements.grade_j)
    return row_mp, grade_mp
