from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from ragcun_cache.cache import CachePair
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import evaluate_vectors
from ragcun_cache.similarity import Similarity


def test_scores_and_counts(tiny_pair: Callable[..., CachePair]) -> None:
    pair = tiny_pair(noise=0.0)
    qrels = {
        "q0": {"p0": 1},
        "q1": {"p1": 1, "gone": 2, "also gone": 0},
        "q2": {"p2": 0},
        "nowhere": {"p1": 1},
    }
    found = evaluate_vectors(
        pair.query.array()[:3], ["q0", "q1", "q2"],
        pair.passage.array(), pair.passage.ids, qrels, Similarity.COSINE, EvalConfig(),
    )  # fmt: skip
    assert found.counts.judged == 4
    assert found.counts.missing == 1
    assert found.counts.without_relevant == 1
    assert found.counts.absent_passages == 1
    assert found.counts.identical_dropped == 0
    assert found.identical_kept is None
    assert found.scores.query_ids == list(qrels)
    ndcg = found.scores.values["ndcg@10"]
    assert ndcg[0] == 1.0
    assert ndcg[1] == pytest.approx(1 / (2 + 1 / np.log2(3)))
    assert ndcg[2:].tolist() == [0.0, 0.0]


def test_identical_ids_are_dropped_counted_and_the_other_figure_known() -> None:
    vectors = np.eye(4, dtype=np.float32) + 0.1
    ids = ["a", "b", "c", "d"]
    qrels = {"a": {"d": 1}, "b": {"d": 1}}
    args = (vectors[:2], ids[:2], vectors, ids, qrels, Similarity.COSINE)
    dropped = evaluate_vectors(*args, EvalConfig())
    kept = evaluate_vectors(*args, EvalConfig(ignore_identical_ids=False))
    assert dropped.counts.identical_dropped == 2
    assert dropped.scores.mean("ndcg@10") == 1.0
    assert kept.counts.identical_dropped == 0
    assert dropped.identical_kept == kept.scores.mean("ndcg@10") == pytest.approx(1 / np.log2(3))


def test_a_hundred_others_are_left_after_dropping() -> None:
    # By falling score: the query's own id, then p00 to p98, and the relevant passage at rank 101 with it, 100 without.
    ids = ["q", *(f"p{i:02d}" for i in range(99)), "relevant", "rest"]
    passage_ne = np.linspace(2.0, 1.0, len(ids), dtype=np.float32)[:, None]
    found = evaluate_vectors(
        np.ones((1, 1), np.float32), ["q"], passage_ne, ids, {"q": {"relevant": 1}}, Similarity.DOT, EvalConfig()
    )
    assert found.scores.mean("recall@100") == 1.0
    assert found.counts.identical_dropped == 1


def test_a_config_takes_what_it_lacks_from_the_collection() -> None:
    class MsMarco:
        test_split = "dev"
        ignore_identical_ids = True

    assert EvalConfig().resolved(MsMarco()) == EvalConfig(split="dev", ignore_identical_ids=True)
    chosen = EvalConfig(split="train", ignore_identical_ids=False)
    assert chosen.resolved(MsMarco()) == chosen


@pytest.mark.parametrize("wrong", [{"k": 10}, {"slpit": "test"}])
def test_a_config_that_would_mislead_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvalConfig.model_validate(wrong)
