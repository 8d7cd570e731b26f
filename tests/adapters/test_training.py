from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ragcun_cache.adapters import train as training
from ragcun_cache.adapters.config import AdapterConfig, Loss
from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.adapters.negatives import mine_negatives, unjudged_duplicates
from ragcun_cache.adapters.train import train_adapter, uses_whole_corpus
from ragcun_cache.errors import TrainingError
from ragcun_cache.heads.config import AdapterMap, AdapterShape, Side

DIM, PASSAGES, QUERIES = 16, 300, 120


def judgements(rows: np.ndarray) -> Judgements:
    """Query i has the one relevant passage rows[i]."""
    n = len(rows)
    return Judgements(np.arange(n), np.arange(n + 1), rows, np.ones(n, np.float32), np.ones(n))


@pytest.fixture(scope="module")
def rotated() -> tuple[torch.Tensor, torch.Tensor, Judgements, torch.Tensor]:
    """Queries that a fixed linear map leads to their passages: train queries, corpus, judgements, held-out queries."""
    generator = torch.Generator().manual_seed(0)
    corpus_nd = normalize(torch.randn(PASSAGES, DIM, generator=generator), dim=1)
    hidden = torch.eye(DIM) + 0.2 * torch.randn(DIM, DIM, generator=generator)
    query_nd = normalize(corpus_nd @ torch.linalg.inv(hidden).T, dim=1)
    return query_nd[:QUERIES], corpus_nd, judgements(np.arange(QUERIES)), query_nd[QUERIES:]


def accuracy(query_md: torch.Tensor, corpus_nd: torch.Tensor, rows: torch.Tensor) -> float:
    return float(((query_md @ corpus_nd.T).argmax(dim=1) == rows).float().mean())


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, 0.85),
        ({"graded": False, "temperature": 0.1}, 0.8),
        ({"full_corpus_rows": 0}, 0.8),
        ({"loss": Loss.PAIRWISE}, 0.8),
        ({"loss": Loss.MARGIN}, 0.7),
        ({"shape": AdapterShape(map=AdapterMap.LOW_RANK, rank=12)}, 0.75),
        ({"shape": AdapterShape(map=AdapterMap.MLP), "learning_rate": 3e-3, "identity_weight": 0.0}, 0.6),
        ({"shape": AdapterShape(side=Side.BOTH)}, 0.3),
    ],
    ids=str,
)
def test_every_kind_of_adapter_learns_what_holds_for_other_queries(rotated, settings, least) -> None:
    query_md, corpus_nd, judged, other_md = rotated
    config = AdapterConfig.model_validate(
        {"epochs": 30, "batch_size": 16, "learning_rate": 5e-3, "identity_weight": 1e-4} | settings
    )
    adapters = train_adapter(config, judged, query_md, corpus_nd, keep=(0, 5))
    assert sorted(adapters) == [0, 5, 30]
    rows = torch.arange(QUERIES, PASSAGES)
    with torch.inference_mode():
        before, after = (
            accuracy(
                normalize(head.encode_query(other_md), dim=1), normalize(head.encode_passage(corpus_nd), dim=1), rows
            )
            for head in (adapters[0], adapters[30])
        )
    raw = accuracy(other_md, corpus_nd, rows)
    assert before == raw
    assert after > max(least, raw), f"{raw} -> {after}"


def test_the_seed_decides_everything_and_the_global_generator_is_left_alone(rotated) -> None:
    query_md, corpus_nd, judged, _ = rotated
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config = AdapterConfig(epochs=2, batch_size=32)
    first, again, other = (
        train_adapter(one, judged, query_md, corpus_nd)[2].state_dict()["map.weight"]
        for one in (config, config, config.model_copy(update={"seed": 1}))
    )
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_strong_regulariser_keeps_the_identity(rotated) -> None:
    query_md, corpus_nd, judged, _ = rotated
    moved = [
        train_adapter(AdapterConfig(epochs=10, identity_weight=weight), judged, query_md, corpus_nd)[10].departure()
        for weight in (0.0, 0.1, 100.0)
    ]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.1 * moved[0]


def test_which_route_negatives_come_from() -> None:
    assert uses_whole_corpus(AdapterConfig(), 200_000)
    assert not uses_whole_corpus(AdapterConfig(), 200_001)
    assert not uses_whole_corpus(AdapterConfig(loss=Loss.MARGIN), 10)
    assert not uses_whole_corpus(AdapterConfig(shape=AdapterShape(side=Side.BOTH)), 10)


def test_no_judgement_and_no_finite_loss_are_errors(rotated) -> None:
    query_md, corpus_nd, judged, _ = rotated
    nothing = Judgements(np.arange(3), np.zeros(4, int), np.empty(0, int), np.empty(0, np.float32), np.ones(3))
    with pytest.raises(TrainingError, match="no query has a relevant passage"):
        train_adapter(AdapterConfig(), nothing, query_md[:3], corpus_nd)
    with pytest.raises(TrainingError, match=r"not finite(.|\n)*epoch 1"):
        train_adapter(AdapterConfig(), judged, query_md * torch.nan, corpus_nd)


def test_a_relevant_passage_that_is_not_near_itself_has_no_duplicates(rotated) -> None:
    query_md, corpus_nd, judged, _ = rotated
    zero_nd = corpus_nd.clone()
    zero_nd[[3, 200]] = 0.0
    assert unjudged_duplicates(zero_nd, judged, 0.95)[3].tolist() == []
    adapter = train_adapter(AdapterConfig(epochs=1), judged, query_md, zero_nd)[1]
    assert all(parameter.isfinite().all() for parameter in adapter.parameters())
    # By rounding: the squared norms of these unit rows are a little below 1.
    short_nd = corpus_nd * (1 - 1e-6)
    assert [rows.tolist() for rows in unjudged_duplicates(short_nd, judged, 1.0)] == [[]] * QUERIES


def test_mined_negatives_are_the_best_that_are_neither_relevant_nor_duplicates() -> None:
    corpus_nd = torch.eye(6)
    corpus_nd[3] = normalize(torch.tensor([0.99, 0.0, 0.05, 0, 0, 0]), dim=0)  # says the same as passage 0
    query_md = normalize(torch.tensor([[0.9, 0.8, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.5, 0.0]]), dim=1)
    judged = judgements(np.array([0, 4]))
    row_mc, negative_mc = mine_negatives(query_md, corpus_nd, judged, 3, 0.95)
    assert row_mc[0].tolist() == [0, 3, 1] and negative_mc[0].tolist() == [False, False, True]
    assert row_mc[1, :2].tolist() == [2, 4] and negative_mc[1, :2].tolist() == [True, False]
    assert [rows.tolist() for rows in unjudged_duplicates(corpus_nd, judged, 0.95)] == [[3], []]
    assert mine_negatives(query_md, corpus_nd, judged, 99, 0.95)[0].shape == (2, 6)


def test_drawn_negatives_stand_for_all_that_are_not_mined() -> None:
    """The softmax of a batch is then, on average, that over the whole corpus; without them it misses most of it."""
    generator = torch.Generator().manual_seed(0)
    corpus_nd = normalize(torch.randn(3_000, DIM, generator=generator), dim=1)
    query_md = normalize(torch.randn(40, DIM, generator=generator), dim=1)
    rows = np.random.default_rng(0).permutation(3_000)[:400]
    ones = np.ones(400, np.float32)
    # Ten relevant passages each, so that they are neither all drawn as negatives nor all the corpus.
    judged = Judgements(np.arange(40), np.arange(0, 401, 10), rows, ones, np.ones(40))
    chosen_b = torch.arange(40)

    def loss(**settings: object) -> float:
        config = AdapterConfig.model_validate({"temperature": 0.2, "duplicate": 1.0, **settings})
        head = train_adapter(config.model_copy(update={"epochs": 0}), judged, query_md, corpus_nd, keep=(0,))[0]
        batch_loss = training._batch_loss(config, head, judged, query_md, corpus_nd)
        return float(np.mean([batch_loss(chosen_b).item() for _ in range(20)]))

    torch.manual_seed(0)
    whole = loss()
    assert loss(full_corpus_rows=0) == pytest.approx(whole, abs=0.02)
    assert loss(full_corpus_rows=0, drawn_negatives=0) < whole - 0.5
