from __future__ import annotations

import io
import json

import numpy as np
import pytest

from ragcun_cache.collections.registry import GROUPS
from ragcun_cache.errors import EvaluationError
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.evaluate import Counts
from ragcun_cache.evaluation.leaderboard import Leaderboard, as_json, build_leaderboards
from ragcun_cache.evaluation.metrics import METRICS, QueryScores
from ragcun_cache.evaluation.render import to_markdown, to_table
from ragcun_cache.evaluation.results import AgainstExact, Result, SeenGold, Setting, metric_name
from ragcun_cache.evaluation.significance import compare, holm
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.system import System, TrainedOn, raw_head
from ragcun_cache.home import Home
from ragcun_cache.similarity import Similarity

N_QUERIES = 40


def head(seed: int, *, arch: str = "lejepa", **settings: object) -> System:
    return System(
        name=f"{arch}-{seed}", sha256=f"{arch}{seed}{settings}", arch=arch, init="random", out_dim=8, seed=seed,
        similarity=Similarity.L2, settings=settings,
    )  # fmt: skip


class Store:
    """A results store with helpers that make up results."""

    def __init__(self, home: Home) -> None:
        self.store = ResultStore(home.results)
        self.n = 0

    def add(
        self,
        collection: str,
        evaluated: System,
        scores_q: np.ndarray,
        *,
        sample_of: str | None = None,
        encoder: str = "e",
        content: str = "c",
        in_base_training: bool = False,
        gold_seen_q: np.ndarray | None = None,
        index: str = "flat",
        split: str = "test",
    ) -> Result:
        self.n += 1
        setting = Setting(
            collection=collection, sample_of=sample_of, split=split, encoder=encoder, model="model",
            query_fingerprint="q", query_content_sha256=content, passage_fingerprint="p",
            passage_content_sha256=content, qrels_sha256="r", config=EvalConfig(split=split, index=index),
        )  # fmt: skip
        values = dict.fromkeys(METRICS, scores_q)
        means = {metric_name(metric, sample_of): float(scores_q.mean()) for metric in METRICS}
        result = Result(
            setting=setting, system=evaluated, metrics=means,
            ndcg_identical_kept=None, counts=Counts(len(scores_q), 0, 0, 0, 0), passages=9,
            in_base_training=in_base_training, seconds=1.0, date=f"2026-01-01T00:00:{self.n:02d}+00:00",
            versions={}, machine={}, commit=None,
        )  # fmt: skip
        if index != "flat":
            exact = AgainstExact(recall=0.9, ndcg_difference=-0.01)
            result = result.model_copy(update={"against_exact": exact})
        if gold_seen_q is not None:
            seen = int(gold_seen_q.sum())
            parts = SeenGold(seen=seen, unseen=len(scores_q) - seen, repeated=0, seen_metrics={}, unseen_metrics={})
            result = result.model_copy(update={"seen_gold": parts})
        self.store.save(result, QueryScores([f"q{i:03d}" for i in range(len(scores_q))], values), gold_seen_q)
        return result

    def boards(self, metric: str = "ndcg@10", baseline: str | None = None) -> list[Leaderboard]:
        return build_leaderboards(self.store.all(), self.store, metric=metric, baseline=baseline, n_permutations=999)


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_raw_is_first_whatever_it_scores(store: Store, rng: np.random.Generator) -> None:
    store.add("a", head(0), rng.uniform(0.5, 1.0, N_QUERIES))
    store.add("a", raw_head(8), rng.uniform(0.0, 0.5, N_QUERIES))
    (board,) = store.boards()
    assert [row.label for row in board.rows] == ["raw encoder", "lejepa random 8d"]
    assert board.rows[0].cells["a/test"].against_raw is None


def test_a_table_without_raw_is_an_error_that_says_how_to_mend_it(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("b", head(0), rng.uniform(size=N_QUERIES), split="dev", index="sq8")
    with pytest.raises(EvaluationError, match="none on b/dev") as caught:
        store.boards()
    assert caught.value.fix == "ragcun-cache eval --dataset b --split dev --encoder e+q+p --index sq8"


def test_seeds_are_one_row_tested_by_their_mean(store: Store, rng: np.random.Generator) -> None:
    raw = rng.uniform(size=N_QUERIES)
    seeds = [np.clip(raw + rng.normal(0.02, 0.1, N_QUERIES), 0, 1) for _ in range(3)]
    store.add("a", raw_head(8), raw)
    for seed, scores in enumerate(seeds):
        store.add("a", head(seed, epochs=3), scores)
    (board,) = store.boards()
    (row,) = board.rows[1:]
    cell = row.cells["a/test"]
    means = [scores.mean() for scores in seeds]
    assert row.seeds == 3
    assert cell.mean == pytest.approx(np.mean(means))
    assert cell.sd == pytest.approx(np.std(means, ddof=1))
    assert cell.against_raw == compare(np.mean(seeds, axis=0), raw, n_permutations=999)
    assert row.mean_difference == pytest.approx(np.mean(means) - raw.mean())


def test_one_seed_has_no_sd(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("a", head(0), rng.uniform(size=N_QUERIES))
    assert store.boards()[0].rows[1].cells["a/test"].sd is None


def test_other_settings_are_other_rows_named_by_the_difference(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("a", head(0, epochs=3, batch_size=16), rng.uniform(size=N_QUERIES))
    store.add("a", head(0, epochs=1, batch_size=16), rng.uniform(size=N_QUERIES))
    labels = sorted(row.label for row in store.boards()[0].rows)
    assert labels == ["lejepa random 8d, epochs=1", "lejepa random 8d, epochs=3", "raw encoder"]


def test_a_seed_that_was_trained_again_counts_once(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("a", head(0), np.zeros(N_QUERIES))
    store.add("a", head(0).model_copy(update={"sha256": "newer"}), np.ones(N_QUERIES))
    cell = store.boards()[0].rows[1].cells["a/test"]
    assert (cell.seeds, cell.mean) == (1, 1.0)


def test_seeds_of_other_code_are_another_row(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    older = [head(seed, epochs=3).model_copy(update={"code": "1111"}) for seed in range(5)]
    newer = [head(seed, epochs=3).model_copy(update={"code": "2222", "sha256": f"new{seed}"}) for seed in range(3)]
    unknown = head(0, epochs=3).model_copy(update={"sha256": "unknown"})
    for one in (*older, *newer, unknown):
        store.add("a", one, rng.uniform(size=N_QUERIES))
    (board,) = store.boards()
    assert {row.label: row.seeds for row in board.rows[1:]} == {
        "lejepa random 8d": 1,
        "lejepa random 8d, code=1111": 5,
        "lejepa random 8d, code=2222": 3,
    }


def test_the_mean_is_over_collections_and_only_where_all_are_there(store: Store) -> None:
    for name, value in (("a", 0.2), ("b", 0.6)):
        store.add(name, raw_head(8), np.full(N_QUERIES, value))
    store.add("a", head(0), np.full(N_QUERIES, 0.9))
    raw, partial = store.boards()[0].rows
    assert raw.mean == pytest.approx(0.4)
    assert partial.mean is None
    assert partial.mean_difference is None


def test_cqadupstack_counts_once_as_the_mean_of_its_forums(store: Store) -> None:
    members = GROUPS["cqadupstack"]
    for name in members:
        store.add(name, raw_head(8), np.full(N_QUERIES, 0.2))
    store.add("a", raw_head(8), np.full(N_QUERIES, 0.6))
    assert len(members) == 12
    assert store.boards()[0].rows[0].mean == pytest.approx(0.4)


def test_sampled_collections_have_a_table_of_their_own(store: Store, rng: np.random.Generator) -> None:
    store.add("full", raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("cut", raw_head(8), rng.uniform(size=N_QUERIES), sample_of="msmarco")
    full, sample = store.boards()
    assert (full.metric, [column.collection for column in full.columns]) == ("ndcg@10", ["full"])
    assert (sample.metric, [column.collection for column in sample.columns]) == ("ndcg@10[sample]", ["cut"])


def test_encoders_have_tables_of_their_own(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES), encoder="e1")
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES), encoder="e2")
    assert [board.encoder for board in store.boards()] == ["e1", "e2"]


def test_splits_that_are_not_published_on_have_no_part_in_a_mean(store: Store, rng: np.random.Generator) -> None:
    for name, split in (("a", "test"), ("a", "train"), ("msmarco", "dev"), ("msmarco", "test")):
        store.add(name, raw_head(8), rng.uniform(size=N_QUERIES), split=split)
        store.add(name, head(0), rng.uniform(size=N_QUERIES), split=split)
    official, others = store.boards()
    assert [column.title for column in official.columns] == ["a/test", "msmarco/dev"]
    assert [column.title for column in others.columns] == ["a/train", "msmarco/test"]
    assert (official.official, others.official) == (True, False)
    text = to_markdown([official, others])
    assert text.count("splits other than the official") == 1


def test_a_collection_that_only_some_seeds_were_evaluated_on_says_so(store: Store, rng: np.random.Generator) -> None:
    for name, seeds in (("a", 3), ("b", 2)):
        store.add(name, raw_head(8), rng.uniform(size=N_QUERIES))
        for seed in range(seeds):
            store.add(name, head(seed), rng.uniform(size=N_QUERIES))
    (board,) = store.boards()
    text = to_markdown([board])
    assert board.rows[1].seeds == 3
    assert text.count("seeds)") == text.count("(2 of 3 seeds)") == 1


def test_versions_of_a_collection_are_never_compared(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES), content="old")
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES + 1), content="new")
    store.add("a", head(0), rng.uniform(size=N_QUERIES), content="old")
    (board,) = store.boards()
    assert len({column.title for column in board.columns}) == 2
    assert len(board.rows[1].cells) == 1


def test_routes_never_stand_in_one_table(store: Store, rng: np.random.Generator) -> None:
    def trained(collection: str) -> System:
        return head(0, arch=f"on-{collection}", dataset=collection).model_copy(
            update={"trained_on": (TrainedOn(collection=collection, split="train"),)}
        )

    for name in ("a", "b"):
        store.add(name, raw_head(8), rng.uniform(size=N_QUERIES))
        store.add(name, head(0, arch="untrained"), rng.uniform(size=N_QUERIES))
        store.add(name, trained("a"), rng.uniform(size=N_QUERIES))
    zero_shot, in_domain = store.boards()
    assert (zero_shot.route, in_domain.route) == ("zero-shot", "in-domain")
    for board, column in ((zero_shot, "b/test"), (in_domain, "a/test")):
        assert [one.title for one in board.columns] == [column]
        assert board.rows[0].raw
        assert sorted(row.label for row in board.rows[1:]) == ["on-a random 8d", "untrained random 8d"]


def test_a_collection_that_nothing_trained_was_evaluated_on_is_not_hidden(
    store: Store, rng: np.random.Generator
) -> None:
    trained = head(0).model_copy(update={"trained_on": (TrainedOn(collection="elsewhere", split="train"),)})
    for name in ("a", "b"):
        store.add(name, raw_head(8), rng.uniform(size=N_QUERIES))
    store.add("a", trained, rng.uniform(size=N_QUERIES))
    found = {board.route: [column.title for column in board.columns] for board in store.boards()}
    assert found == {"zero-shot": ["a/test"], None: ["b/test"]}


def test_heads_that_were_each_trained_on_their_own_collection_are_one_row(
    store: Store, rng: np.random.Generator
) -> None:
    for name in ("a", "b"):
        store.add(name, raw_head(8), rng.uniform(size=N_QUERIES))
        own = head(0, arch="linear", dataset=name, train_caches=f"{name}123", rank=8)
        own = own.model_copy(update={"trained_on": (TrainedOn(collection=name, split="train"),)})
        store.add(name, own, rng.uniform(size=N_QUERIES))
    (board,) = store.boards()
    assert [row.label for row in board.rows] == ["raw encoder", "linear random 8d"]
    assert board.rows[1].mean is not None


def test_heads_of_a_collection_and_of_samples_of_it_are_rows_of_their_own(
    store: Store, rng: np.random.Generator
) -> None:
    known = (TrainedOn(collection="a", split="train"),)
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    means = {}
    for dataset in ("a", "a-pairs5-seed0", "a-pairs9-seed0"):
        own = head(0, dataset=dataset, train_caches=f"{dataset}123").model_copy(update={"trained_on": known})
        means[dataset] = store.add("a", own, rng.uniform(size=N_QUERIES)).metrics["ndcg@10"]
    (board,) = store.boards()
    found = {row.label.split("dataset=")[1].split(",")[0]: row.cells["a/test"].mean for row in board.rows[1:]}
    assert found == {"its own collection": means.pop("a"), **means}


def test_p_values_are_corrected_for_the_collections_of_a_row(store: Store, rng: np.random.Generator) -> None:
    raw, other = rng.uniform(size=(2, 3, N_QUERIES))
    for i, name in enumerate("abc"):
        store.add(name, raw_head(8), raw[i])
        store.add(name, head(0), raw[i] + (i + 1) * 0.02 * other[i] + rng.normal(0, 0.05, N_QUERIES))
    _, row = store.boards()[0].rows
    found = {title: cell.against_raw for title, cell in row.cells.items() if cell.against_raw}
    assert {title: one.p_holm for title, one in found.items()} == holm(
        {title: one.p_value for title, one in found.items()}
    )
    assert any(one.p_holm > one.p_value for one in found.values())


@pytest.mark.parametrize("baseline", ["isotropy random 8d", "isotropy-0", "iso*"])
def test_every_row_is_compared_with_a_chosen_baseline(store: Store, rng: np.random.Generator, baseline: str) -> None:
    scores = {arch: rng.uniform(size=N_QUERIES) for arch in ("lejepa", "isotropy")}
    raw = rng.uniform(size=N_QUERIES)
    store.add("a", raw_head(8), raw)
    for arch, one in scores.items():
        store.add("a", head(0, arch=arch), one)
    (board,) = store.boards(baseline=baseline)
    assert board.baseline == "isotropy random 8d"
    cells = {row.label: row.cells["a/test"] for row in board.rows}
    assert cells["isotropy random 8d"].against_baseline is None
    expected = compare(scores["lejepa"], scores["isotropy"], n_permutations=999)
    assert cells["lejepa random 8d"].against_baseline == expected
    assert cells["raw encoder"].against_baseline == compare(raw, scores["isotropy"], n_permutations=999)
    assert "◇ The same against isotropy random 8d." in to_markdown([board])


def test_a_baseline_that_is_no_row_or_several_is_refused(store: Store, rng: np.random.Generator) -> None:
    store.add("a", raw_head(8), rng.uniform(size=N_QUERIES))
    for epochs in (1, 2):
        store.add("a", head(0, epochs=epochs), rng.uniform(size=N_QUERIES))
    with pytest.raises(EvaluationError, match="unknown baseline 'lejepa random'"):
        store.boards(baseline="lejepa random")
    with pytest.raises(EvaluationError, match="several rows match"):
        store.boards(baseline="lejepa-0")


def test_queries_with_seen_and_unseen_gold_are_told_apart_beside_raw(store: Store, rng: np.random.Generator) -> None:
    raw, own = rng.uniform(size=(2, N_QUERIES))
    seen_q = np.arange(N_QUERIES) < 30
    in_domain = head(0).model_copy(update={"trained_on": (TrainedOn(collection="a", split="train"),)})
    store.add("a", raw_head(8), raw)
    store.add("a", in_domain, own, gold_seen_q=seen_q)
    (board,) = store.boards()
    seen, unseen = board.rows[1].cells["a/test"].gold
    assert (seen.seen, seen.queries, seen.mean, seen.raw) == (
        True, 30, pytest.approx(own[:30].mean()), pytest.approx(raw[:30].mean())
    )  # fmt: skip
    assert (unseen.seen, unseen.queries, unseen.mean, unseen.raw) == (
        False, 10, pytest.approx(own[30:].mean()), pytest.approx(raw[30:].mean())
    )  # fmt: skip
    assert f"unseen gold (10): {own[30:].mean():.4f}, raw {raw[30:].mean():.4f}" in to_markdown([board])


def test_an_index_has_a_table_of_its_own_and_says_what_it_costs(store: Store, rng: np.random.Generator) -> None:
    for index in ("flat", "hnsw:m=8"):
        for system in (raw_head(8), head(0)):
            result = store.add("a", system, rng.uniform(size=N_QUERIES), index=index)
            assert (result.against_exact is None) == (index == "flat")
    flat, hnsw = store.boards()
    assert (flat.index, hnsw.index) == ("flat", "hnsw:ef_construction=200,ef_search=256,m=8")
    assert [column.title for column in flat.columns] == [column.title for column in hnsw.columns] == ["a/test"]
    assert all(row.mean is not None for row in (*flat.rows, *hnsw.rows))
    assert f"### ndcg@10 · model (e) · {hnsw.index}" in to_markdown([hnsw])
    assert "index:" not in to_markdown([flat])
    assert "index: recall@10 0.9000, NDCG@10 -0.0100" in to_markdown([hnsw])


def test_rendering(store: Store, rng: np.random.Generator) -> None:
    from rich.console import Console

    store.add("ms", raw_head(8), np.full(N_QUERIES, 0.123456), sample_of="msmarco", in_base_training=True)
    store.add("ms", head(0, note="a|b"), np.full(N_QUERIES, 0.5), sample_of="msmarco", in_base_training=True)
    store.add("ms", head(1, note="c"), np.full(N_QUERIES, 0.5), sample_of="msmarco", in_base_training=True)
    boards = store.boards()
    text = to_markdown(boards)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[2].startswith("| raw encoder | – | 0.1235 |")
    assert "ms/test† (40)" in rows[0]
    assert r"note=a\|b" in text
    assert "+0.3765 p=0.001<br>(+0.3765, +0.3765)<br>40/0/0" in text
    assert "not zero-shot" in text
    assert "never compare" in text
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(to_table(boards[0]))
    shown = console.export_text()
    assert "ndcg@10[sample]" in shown
    assert "note=a|b" in shown
    assert shown.index("raw encoder") < shown.index("lejepa")


def test_json_keeps_full_precision(store: Store) -> None:
    store.add("a", raw_head(8), np.full(N_QUERIES, 1 / 3))
    content = json.loads(json.dumps(as_json(store.boards()[0])))
    assert content["rows"][0]["cells"]["a/test"]["mean"] == 1 / 3
