from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.collection import Collection, open_collection
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.leaderboard import build_leaderboards
from ragcun_cache.evaluation.results import route_of
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Encode, Subject, encode_raw
from ragcun_cache.evaluation.system import Cost, System, TrainedOn, raw_head
from ragcun_cache.home import Home
from ragcun_cache.retrieval.run import Run
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

MakeSubject = Callable[..., Subject]


@pytest.fixture
def make_subject(cached_collection: Callable[..., tuple[Collection, CachePair]]) -> MakeSubject:
    def make(name: str = "tiny", *, sample_of: str | None = None, config: EvalConfig | None = None) -> Subject:
        collection, pair = cached_collection(name, noise=3.0)
        if sample_of:
            (collection.folder / "collection.json").write_text(json.dumps({"sample_of": sample_of}))
            collection = open_collection(collection.folder, name)
        return Subject.of(collection, pair, config or EvalConfig())

    return make


def never() -> Encode:
    raise AssertionError("a stored result was computed again")


def other_head(seed: int = 0, **settings: object) -> System:
    return System(
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


def test_a_head_that_other_code_made_alike_has_the_stored_result_and_its_own_code(
    home: Home, make_subject: MakeSubject
) -> None:
    store, subject = ResultStore(home.results), make_subject()
    older, newer = (other_head().model_copy(update={"code": code}) for code in ("1111", "2222"))
    first = subject.evaluate(older, lambda: encode_raw, store)
    again = subject.evaluate(newer, never, store)
    assert (first.system.code, again.system.code) == ("1111", "2222")
    assert again.key == first.key
    assert store.all() == [first]


def _pair(home: Home, name: str) -> CachePair:
    from ragcun_cache.cache import open_pair

    return open_pair(home.caches, open_collection(home.collections / name, name))


def test_whatever_changes_a_figure_changes_the_key(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    subject = make_subject()

    def key(subject: Subject, head: System) -> str:
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


def test_the_corpus_is_never_in_memory_whole(
    home: Home, make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_subject().evaluate(raw_head(32), lambda: encode_raw, ResultStore(home.results))
    sizes: list[int] = []

    def encode(vectors_nd: np.ndarray, norms_n: np.ndarray, role: Role) -> np.ndarray:
        sizes.append(len(vectors_nd))
        return vectors_nd

    def refuse(*_: object) -> None:
        raise AssertionError("all vectors were read at once")

    monkeypatch.setattr("ragcun_cache.evaluation.subject.BLOCK_ROWS", 50)
    monkeypatch.setattr("ragcun_cache.cache.EmbeddingCache.array", refuse)
    subject = Subject.of(open_collection(home.collections / "tiny", "tiny"), _pair(home, "tiny"), EvalConfig())
    blocks = subject.evaluate(raw_head(32), lambda: encode, ResultStore(home.root / "other"))
    assert sizes == [15, 50, 50, 20]
    assert blocks.metrics == whole.metrics


def test_a_sampled_collection_has_its_own_metric_names(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    sample = make_subject("sample", sample_of="msmarco").evaluate(raw_head(32), lambda: encode_raw, store)
    full = make_subject("full").evaluate(raw_head(32), lambda: encode_raw, store)
    assert list(sample.metrics) == ["ndcg@10[sample]", "map@100[sample]", "recall@100[sample]", "mrr@10[sample]"]
    assert list(full.metrics) == ["ndcg@10", "map@100", "recall@100", "mrr@10"]
    assert list(store.per_query(sample).values) == list(sample.metrics)


@pytest.mark.parametrize(
    ("sample_of", "model", "trained"),
    [
        ("msmarco", "sentence-transformers/all-mpnet-base-v2", True),
        ("msmarco", "all-mpnet-base-v2-reference", True),
        ("msmarco", "sentence-transformers/all-MiniLM-L6-v2", True),
        ("quora", "all-distilroberta-v1", True),
        ("scifact", "all-MiniLM-L12-v2", False),
        ("msmarco", "paraphrase-MiniLM-L6-v2", False),
        (None, "all-MiniLM-L6-v2", False),
    ],
)
def test_collections_that_the_encoder_was_trained_on_are_known_by_source_and_model(
    make_subject: MakeSubject, sample_of: str | None, model: str, trained: bool
) -> None:
    subject = make_subject(sample_of=sample_of)
    vars(subject)["setting"] = subject.setting.model_copy(update={"model": model})
    assert subject.in_base_training == trained


def test_per_query_scores_are_kept_at_full_precision(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, store)
    scores = store.per_query(result)
    assert scores.query_ids == [f"q{i}" for i in range(55, 70)]
    for metric, mean in result.metrics.items():
        assert scores.mean(metric) == mean
    assert 0 < result.metrics["ndcg@10"] < 1


def test_queries_are_paired_by_their_ids_after_the_judgements_were_put_in_another_order(
    home: Home, make_subject: MakeSubject
) -> None:
    store = ResultStore(home.results)
    subject = make_subject()
    raw = subject.evaluate(raw_head(32), lambda: encode_raw, store)
    path = subject.collection.qrels_path("test")
    title, *lines = path.read_text().splitlines()
    path.write_text("\n".join([title, *reversed(lines)]) + "\n")
    turned = Subject.of(subject.collection, subject.pair, EvalConfig())
    # The same vectors under another name: it ties on every query.
    same = raw_head(32).model_copy(update={"name": "same", "sha256": "same", "arch": "same"})
    again = turned.evaluate(same, lambda: encode_raw, store)
    assert again.setting == raw.setting
    assert len(set(store.per_query(raw).values["ndcg@10"])) > 1
    (board,) = build_leaderboards(store.all(), store, n_permutations=9)
    against = board.rows[1].cells["tiny/test"].against_raw
    assert against is not None
    assert (against.wins, against.ties, against.losses, against.interval) == (0, 15, 0, (0.0, 0.0))


def test_a_head_that_puts_out_nonsense_is_named_and_leaves_no_result(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    with pytest.raises(EvaluationError, match="other-0 on tiny/test"):
        make_subject().evaluate(other_head(), lambda: lambda vectors, norms, role: vectors * np.float32("nan"), store)
    assert store.all() == []


def test_results_name_neither_host_nor_user(home: Home, make_subject: MakeSubject) -> None:
    result = make_subject().evaluate(raw_head(32), lambda: encode_raw, ResultStore(home.results))
    text = result.model_dump_json()
    assert set(result.machine) == {"cpu", "cores", "architecture", "system"}
    assert str(home.root) not in text


def test_a_system_that_makes_its_own_run_is_judged_as_heads_are(home: Home, make_subject: MakeSubject) -> None:
    store = ResultStore(home.results)
    subject = make_subject()
    raw = subject.evaluate(raw_head(32), lambda: encode_raw, store)
    own = System(name="own", sha256="1", arch="fusion", settings={"weight": 0.5}, route="zero-shot")
    doubled = subject.evaluate_run(
        own,
        lambda: {
            query: {passage: 2 * score for passage, score in reversed(scores.items())}
            for query, scores in subject.search(encode_raw, Similarity.COSINE).items()
        },
        store,
        cost=Cost(seconds=1.5, bytes=10, index_rebuilt=False),
    )
    assert doubled.metrics == raw.metrics
    assert doubled.counts == raw.counts
    assert (doubled.route, raw.route) == ("zero-shot", None)
    assert (
        subject.evaluate_run(own, never_ranked, store).cost
        == doubled.cost
        == Cost(seconds=1.5, bytes=10, index_rebuilt=False)
    )


def never_ranked() -> Run:
    raise AssertionError("a stored result was computed again")


def test_a_run_with_a_passage_from_elsewhere_is_refused(home: Home, make_subject: MakeSubject) -> None:
    own = System(name="own", sha256="1", arch="fusion")
    with pytest.raises(EvaluationError, match="own on tiny/test: 1 passages of the run are not in the corpus"):
        make_subject().evaluate_run(own, lambda: {"q55": {"p1": 1.0, "p999": 0.5}}, ResultStore(home.results))


def test_queries_are_told_apart_by_gold_that_was_gold_in_training(home: Home, make_subject: MakeSubject) -> None:
    # Train queries q0 to q39 have gold p0 to p39, test queries q55 to q69 gold p55 to p69.
    subject = make_subject()
    folder = subject.collection.folder
    train, test = folder / "qrels" / "train.tsv", folder / "qrels" / "test.tsv"
    train.write_text(train.read_text() + "q0\tp55\t1\nq1\tp56\t0\n")
    test.write_text(test.read_text() + "q60\tp7\t1\nq61\tp8\t0\nq5\tp100\t1\n")
    queries = folder / "queries.jsonl"
    lines = queries.read_text().splitlines()
    same = json.loads(lines[3])["text"]
    assert json.loads(lines[58])["_id"] == "q58"
    lines[58] = json.dumps({"_id": "q58", "text": f"  {same.upper()} "})
    queries.write_text("\n".join(lines) + "\n")
    subject = Subject.of(subject.collection, subject.pair, EvalConfig())
    store = ResultStore(home.results)
    own = other_head().model_copy(update={"trained_on": (TrainedOn(collection="tiny", split="train"),)})
    result = subject.evaluate(own, lambda: encode_raw, store)
    scores, seen_q = store.per_query(result), ResultStore(home.results).gold_seen(result)
    assert seen_q is not None
    assert [query for query, seen in zip(scores.query_ids, seen_q, strict=True) if seen] == ["q55", "q60"]
    assert result.seen_gold is not None
    assert (result.seen_gold.seen, result.seen_gold.unseen) == (2, 14)
    assert result.seen_gold.repeated == 2, "q5 by its id, q58 by its text"
    ndcg_q = scores.values["ndcg@10"]
    assert result.seen_gold.seen_metrics["ndcg@10"] == pytest.approx(ndcg_q[seen_q].mean())
    assert result.seen_gold.unseen_metrics["ndcg@10"] == pytest.approx(ndcg_q[~seen_q].mean())
    elsewhere = other_head(1).model_copy(update={"trained_on": (TrainedOn(collection="other", split="train"),)})
    assert subject.evaluate(elsewhere, lambda: encode_raw, store).seen_gold is None


@pytest.mark.parametrize(
    ("evaluated", "trained", "refused"),
    [
        (None, "test", True),
        (None, "train", False),
        ("train", "train", True),
        ("train", "test", True),
        ("train", "dev", False),
    ],
)
def test_a_system_that_was_trained_or_chosen_by_the_test_split_or_that_evaluated_is_refused(
    home: Home, make_subject: MakeSubject, evaluated: str | None, trained: str, refused: bool
) -> None:
    subject = make_subject(config=EvalConfig(split=evaluated))
    own = other_head().model_copy(update={"trained_on": (TrainedOn(collection="tiny", split=trained),)})
    if not refused:
        assert subject.evaluate(own, lambda: encode_raw, ResultStore(home.results)).route == "in-domain"
        return
    with pytest.raises(EvaluationError, match=f"trained or chosen by the {trained} split of tiny"):
        subject.evaluate(own, never, ResultStore(home.results))


def test_on_a_sample_only_systems_are_tested_that_know_nothing_of_the_whole_but_by_that_very_sample(
    home: Home, make_subject: MakeSubject
) -> None:
    subject = make_subject(sample_of="whole", config=EvalConfig(split="dev"))
    store = ResultStore(home.results)

    def knows(*places: tuple[str, str]) -> System:
        known = tuple(TrainedOn(collection=name, split=split) for name, split in places)
        return other_head().model_copy(update={"trained_on": known})

    for informed in (knows(("whole", "train")), knows(("whole-pairs9-seed1", "train"), ("whole", "train"))):
        with pytest.raises(EvaluationError, match="by the train split of whole, and so perhaps by queries of tiny"):
            subject.evaluate(informed, never, store)
    with pytest.raises(EvaluationError, match="trained or chosen by the dev split of tiny"):
        subject.evaluate(knows(("tiny", "train"), ("tiny", "dev"), ("whole", "train")), never, store)
    trained = knows(("tiny", "train"), ("whole", "train"))
    assert subject.evaluate(trained, lambda: encode_raw, store).route == "in-domain"
    assert subject.evaluate(knows(("elsewhere", "train")), lambda: encode_raw, store).route == "zero-shot"


def test_the_route_follows_from_what_a_system_was_trained_on(home: Home, make_subject: MakeSubject) -> None:
    def trained_on(*collections: str) -> System:
        splits = tuple(TrainedOn(collection=name, split="train") for name in collections)
        return other_head().model_copy(update={"trained_on": splits})

    for system, route in (
        (other_head(), None),
        (trained_on("elsewhere"), "zero-shot"),
        (trained_on("elsewhere", "tiny"), "in-domain"),
    ):
        assert route_of(system, "tiny", None) == route
    assert route_of(trained_on("whole"), "whole-pairs5-seed0", "whole") == "in-domain"
    with pytest.raises(EvaluationError, match="zero-shot"):
        make_subject().evaluate(
            trained_on("tiny").model_copy(update={"route": "zero-shot"}), never, ResultStore(home.results)
        )
