from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection, open_collection
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.results import EvaluatedHead, ResultStore, raw_head, results_frame
from ragcun_cache.evaluation.subject import Encode, Subject, encode_raw
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

MakeSubject = Callable[..., Subject]


@pytest.fixture
def make_subject(tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]) -> MakeSubject:
    def make(name: str = "tiny", *, sample_of: str | None = None, config: EvalConfig | None = None) -> Subject:
        folder = tiny_collection(name)
        if sample_of:
            (folder / "collection.json").write_text(json.dumps({"sample_of": sample_of}))
        collection: Collection = open_collection(folder, name)
        pair = tiny_pair(name, noise=3.0, content={role: collection.content_sha256(role) for role in Role})
        return Subject.of(collection, pair, config or EvalConfig())

    return make


def never() -> Encode:
    raise AssertionError("a stored result was computed again")


def other_head(seed: int = 0, **settings: object) -> EvaluatedHead:
    return EvaluatedHead(
        name=f"other-{seed}", sha256=f"{seed}", arch="other", init="random", out_dim=32, seed=seed,
        similarity=Similarity.L2, settings=settings,
    )  # fmt: skip


def test_the_second_evaluation_is_the_first_ones_result(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    first = make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    again = make_subject("again").evaluate(raw_head(32), lambda: encode_raw, store)
    assert store.all() == sorted([first, again], key=lambda result: result.setting.collection)
    subject = Subject.of(open_collection(home.collections / "tiny", "tiny"), _pair(home, "tiny"), EvalConfig())
    assert subject.evaluate(raw_head(32), never, store) == first


def _pair(home: Home, name: str) -> CachePair:
    from ragcun_cache.cache import open_pair

    return open_pair(home.caches, open_collection(home.collections / name, name))


def test_whatever_changes_a_figure_changes_the_key(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    subject = make_subject()

    def key(subject: Subject, head: EvaluatedHead) -> str:
        return subject.evaluate(head, lambda: encode_raw, store).key

    collection = subject.collection
    keys = [
        key(subject, raw_head(32)),
        key(subject, other_head(0)),
        key(subject, other_head(1)),
        key(subject, other_head(0, epochs=3)),
        key(Subject.of(collection, subject.pair, EvalConfig(split="dev")), raw_head(32)),
        key(Subject.of(collection, subject.pair, EvalConfig(ignore_identical_ids=False)), raw_head(32)),
        key(Subject.of(collection, subject.pair, EvalConfig(k=101)), raw_head(32)),
    ]
    qrels = collection.qrels_path("test")
    qrels.write_text(qrels.read_text() + "q55\tp1\t1\n")
    keys.append(key(Subject.of(collection, subject.pair, EvalConfig()), raw_head(32)))
    assert len(set(keys)) == len(keys)


def test_only_the_judged_queries_and_the_whole_corpus_go_through_the_head(
    home: Home, make_subject: MakeSubject
) -> None:
    seen: dict[Role, tuple[int, ...]] = {}

    def encode(vectors_nd: np.ndarray, norms_n: np.ndarray, role: Role) -> np.ndarray:
        assert len(vectors_nd) == len(norms_n)
        seen[role] = vectors_nd.shape
        return vectors_nd

    result = make_subject().evaluate(other_head(), lambda: encode, ResultStore(home.results))
    assert seen == {Role.QUERY: (15, 32), Role.PASSAGE: (120, 32)}
    assert result.counts.judged == 15
    assert result.passages == 120


def test_a_sampled_collection_has_its_own_metric_names(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    sample = make_subject("sample", sample_of="msmarco").evaluate(raw_head(32), lambda: encode_raw, store)
    full = make_subject("full").evaluate(raw_head(32), lambda: encode_raw, store)
    assert list(sample.metrics) == ["ndcg@10[sample]", "map@100[sample]", "recall@100[sample]", "mrr@10[sample]"]
    assert list(full.metrics) == ["ndcg@10", "map@100", "recall@100", "mrr@10"]
    assert list(store.per_query(sample).values) == list(sample.metrics)


def test_per_query_scores_are_kept_at_full_precision(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    scores = store.per_query(result)
    assert scores.query_ids == [f"q{i}" for i in range(55, 70)]
    for metric, mean in result.metrics.items():
        assert scores.mean(metric) == mean
    assert 0 < result.metrics["ndcg@10"] < 1


def test_a_head_that_puts_out_nonsense_is_named_and_leaves_no_result(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    with pytest.raises(EvaluationError, match="other-0 on tiny/test"):
        make_subject().evaluate(other_head(), lambda: lambda vectors, norms, role: vectors * np.float32("nan"), store)
    assert store.all() == []


def test_a_failed_write_leaves_nothing(home: Home, make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(home.results)

    def fail(path: Path, content: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("ragcun_cache.evaluation.results.write_json", fail)
        make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    assert list(store.root.iterdir()) == []


def test_a_result_that_another_process_wrote_meanwhile_stays(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    store.save(result.model_copy(update={"seconds": -1.0}), store.per_query(result))
    assert store.all() == [result]
    assert [path.name for path in store.root.iterdir()] == [result.key]


@pytest.mark.parametrize("file", ["result.json", "per_query.parquet"])
def test_a_damaged_result_is_an_error_that_says_what_to_do(home: Home, make_subject: MakeSubject, file: str) -> None:
    store = ResultStore(home.results)
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    path = store.root / result.key / file
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(EvaluationError, match="cannot be read") as caught:
        [store.per_query(found) for found in store.all()]
    assert result.key in str(caught.value.fix)


def test_results_name_neither_host_nor_user(home: Home, make_subject: MakeSubject) -> None:
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, ResultStore(home.results))
    text = result.model_dump_json()
    assert set(result.machine) == {"cpu", "cores", "architecture", "system"}
    assert str(home.root) not in text


def test_all_results_are_one_frame(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    assert results_frame(store.all()).is_empty()
    for subject in (make_subject("sample", sample_of="msmarco"), make_subject("full")):
        subject.evaluate(raw_head(32), lambda: encode_raw, store)
    frame = results_frame(store.all())
    assert frame["collection"].to_list() == ["full", "sample"]
    assert frame["ndcg@10"].null_count() == frame["ndcg@10[sample]"].null_count() == 1
    assert frame["judged"].to_list() == [15, 15]
