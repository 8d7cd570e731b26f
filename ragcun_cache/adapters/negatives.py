"""Negatives: the best passages of each training query that are not relevant to it; and what is no negative."""

from __future__ import annotations

import torch
from torch import Tensor

from ragcun_cache.adapters.judgements import Judgements

_BLOCK_ROWS = 16_384


def mine_negatives(
    query_md: Tensor, corpus_nd: Tensor, judgements: Judgements, count: int, duplicate: float
) -> tuple[Tensor, Tensor]:
    """Return rows (m, c) int64 of the best passages of each query by cosine, and which of them are negatives (m, c).

    ``query_md`` and ``corpus_nd`` are unit rows. Not negative are relevant passages, and those whose cosine with a
    relevant passage of the query is at least ``duplicate``. ``c`` is ``count``, or n if there are fewer.
    """
    count = min(count, len(corpus_nd))
    score_mc = query_md.new_empty((len(query_md), 0))
    row_mc = torch.empty((len(query_md), 0), dtype=torch.int64)
    for first in range(0, len(corpus_nd), _BLOCK_ROWS):
        block_rd = corpus_nd[first : first + _BLOCK_ROWS].to(query_md.dtype)
        found = (query_md @ block_rd.T).topk(min(count, len(block_rd)), dim=1)
        score_mc = torch.cat([score_mc, found.values], dim=1)
        row_mc = torch.cat([row_mc, found.indices + first], dim=1)
        best = score_mc.topk(min(count, score_mc.shape[1]), dim=1)
        score_mc, row_mc = best.values, row_mc.gather(1, best.indices)
    negative_mc = torch.ones_like(row_mc, dtype=torch.bool)
    for query in range(len(judgements)):
        relevant = judgements.passage_j[judgements.start_m1[query] : judgements.start_m1[query + 1]]
        if len(relevant):
            relevant_rows = torch.from_numpy(relevant)
            near_c = corpus_nd[row_mc[query]].to(query_md.dtype) @ corpus_nd[relevant_rows].to(query_md.dtype).T
            negative_mc[query] = (near_c.amax(dim=1) < duplicate) & ~torch.isin(row_mc[query], relevant_rows)
    return row_mc, negative_mc


def unjudged_duplicates(corpus_nd: Tensor, judgements: Judgements, duplicate: float) -> list[Tensor]:
    """Return for each query the rows, int64, of passages that are no negatives of it though not judged relevant.

    They have a cosine of at least ``duplicate`` with one of its relevant passages: most likely they say the same.
    """
    relevant_p = torch.unique(torch.from_numpy(judgements.passage_j))
    relevant_pd = corpus_nd[relevant_p].float()
    pairs = []
    for first in range(0, len(corpus_nd), _BLOCK_ROWS):
        near_pr = relevant_pd @ corpus_nd[first : first + _BLOCK_ROWS].float().T >= duplicate
        pairs.append(near_pr.nonzero() + torch.tensor([0, first]))
    place_k, row_k = torch.cat(pairs).unbind(dim=1)
    near = {int(relevant_p[place]): row_k[place_k == place] for place in torch.unique(place_k).tolist()}
    nothing = torch.empty(0, dtype=torch.int64)
    found = []
    for query in range(len(judgements)):
        own = judgements.passage_j[judgements.start_m1[query] : judgements.start_m1[query + 1]].tolist()
        # Not even itself is near a zero vector, nor, by rounding, near any vector where ``duplicate`` is 1.
        rows = torch.unique(torch.cat([nothing, *(near.get(passage, nothing) for passage in own)]))
        found.append(rows[~torch.isin(rows, torch.tensor(own, dtype=torch.int64))])
    return found
