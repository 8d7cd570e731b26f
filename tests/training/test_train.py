from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

from ragcun_cache.cache import CachePair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.device import resolve_device
from ragcun_cache.errors import CacheError, ConfigError, TrainingError
from ragcun_cache.heads import apply_head, load_head, read_record
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.store import list_heads
from ragcun_cache.home import Home
from ragcun_cache.role import Role
from ragcun_cache.training import loop, run
from ragcun_cache.training.config import TrainConfig, make_config
from ragcun_cache.training.pairs import load_training_data
from ragcun_cache.training.run import METRICS_NAME, train_head

DIM = 32


@pytest.fixture
def tiny(home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]) -> CachePair:
    tiny_collection("tiny")
    return cached("tiny", home, tiny_pair)


def cached(name: str, home: Home, tiny_pair: Callable[..., CachePair]) -> CachePair:
    collection = find_collection(name, home)
    return tiny_pair(name, dim=DIM, content={role: collection.content_sha256(role) for role in Role})


def config_of(**settings: Any) -> TrainConfig:
    learns = settings.get("arch") not in ("identity", "untrained")
    return make_config({"dataset": "tiny", "device": "cpu", **({"batch_size": 8} if learns else {}), **settings})


def weights_of(folder: Path) -> dict[str, bytes]:
    head = load_head(folder).head
    return {name: tensor.numpy().tobytes() for name, tensor in head.state_dict().items()}


def test_a_run_is_a_loadable_head_with_a_row_for_each_epoch(home: Home, tiny: CachePair) -> None:
    config = config_of(epochs=2)
    trained = train_head(config, home)
    record = read_record(trained.record.folder)
    assert record == trained.record
    assert record.complete
    assert record.folder.parent == home.heads
    assert record.name.startswith("tiny-lejepa-identity-32d-seed0-")
    assert record.provenance["encoder"] == tiny.encoder
    assert record.provenance["caches"]["passage"]["fingerprint"] == tiny.passage.fingerprint
    assert record.provenance["versions"]["torch"] == torch.__version__
    rows = polars.read_parquet(record.folder / METRICS_NAME).to_dicts()
    assert rows == trained.rows
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["steps"] for row in rows] == [0, 5, 5]
    assert (rows[0]["dev_queries"], rows[0]["dev_corpus_rows"]) == (15, 120)
    assert all(0 < row["dev_ndcg@10"] <= 1 for row in rows)
    weighted = [config.weight(term) * rows[2][f"loss_{term}"] for term in ("isotropy", "predictive")]
    assert rows[2]["loss"] == pytest.approx(sum(weighted))
    assert rows[2]["output_std_ratio"] < 1
    assert sorted(path.name for path in record.folder.iterdir()) == ["head.json", "head.safetensors", METRICS_NAME]


@pytest.mark.parametrize("arch", ["isotropy", "lejepa"])
def test_a_start_at_the_identity_scores_as_raw_at_epoch_0(home: Home, tiny: CachePair, arch: str) -> None:
    raw = train_head(config_of(arch="identity"), home)
    near_raw = train_head(config_of(arch=arch, init="identity", isotropy="scale_free", epochs=1), home)
    assert near_raw.rows[0]["dev_ndcg@10"] == raw.rows[0]["dev_ndcg@10"]
    assert near_raw.rows[0]["relative_residual"] == 0
    assert near_raw.rows[1]["relative_residual"] > 0
    assert len(raw.rows) == 1


def test_training_lowers_the_loss_and_moves_the_weights(home: Home, tiny: CachePair) -> None:
    settings: dict[str, Any] = {"arch": "isotropy", "isotropy": "scale_free", "dropout": 0.0, "learning_rate": 3e-3}
    trained = train_head(config_of(**settings, epochs=4), home)
    untrained = train_head(config_of(arch="untrained"), home)
    assert trained.rows[-1]["loss"] < trained.rows[1]["loss"]
    assert trained.rows[0]["dev_ndcg@10"] == untrained.rows[0]["dev_ndcg@10"]
    assert weights_of(trained.record.folder) != weights_of(untrained.record.folder)


def test_without_ema_the_target_is_the_online_output(home: Home, tiny: CachePair) -> None:
    with_ema = train_head(config_of(epochs=1), home)
    without = train_head(config_of(epochs=1, ema=None), home)
    assert with_ema.rows[1]["loss_predictive"] != without.rows[1]["loss_predictive"]


def test_a_finished_run_is_found_and_fresh_repeats_it_bit_for_bit(home: Home, tiny: CachePair) -> None:
    first = train_head(config_of(epochs=1), home)
    weights = weights_of(first.record.folder)
    again = train_head(config_of(epochs=1), home)
    assert again.reused
    assert again.rows == first.rows
    fresh = train_head(config_of(epochs=1), home, fresh=True)
    assert not fresh.reused
    assert weights_of(fresh.record.folder) == weights
    assert weights_of(train_head(config_of(epochs=1, seed=1), home).record.folder) != weights


@pytest.mark.parametrize("interrupted_in", [1, 2, 3])
@pytest.mark.parametrize("other", [{"ema": 0.99}, {"ema": None}, {"precision": "bf16"}])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    home: Home, tiny: CachePair, monkeypatch: pytest.MonkeyPatch, interrupted_in: int, other: dict[str, Any]
) -> None:
    config = config_of(epochs=3, schedule="cosine", warmup_steps=4, **other)
    whole = train_head(config, home)
    expected = weights_of(whole.record.folder)
    monkeypatch.setattr(loop, "clip_gradients", _interrupting(5 * (interrupted_in - 1) + 3))
    with pytest.raises(KeyboardInterrupt):
        train_head(config, home, fresh=True)
    monkeypatch.undo()

    # What was cut is a head all the same: that of the last whole epoch.
    cut = load_head(whole.record.folder)
    assert not cut.complete
    assert cut.provenance["epoch"] == interrupted_in - 1
    assert apply_head(cut.head, np.ones((2, DIM), np.float32), Role.QUERY).shape == (2, DIM)

    torch.manual_seed(999)
    resumed = train_head(config, home)
    assert not resumed.reused
    assert weights_of(resumed.record.folder) == expected
    assert resumed.record.sha256 == whole.record.sha256
    untimed = [[{k: v for k, v in row.items() if "seconds" not in k} for row in one.rows] for one in (whole, resumed)]
    assert untimed[0] == untimed[1]


def _interrupting(at_step: int) -> Callable[..., None]:
    steps = 0

    def clip(parameters: list[torch.nn.Parameter], largest: float) -> None:
        nonlocal steps
        steps += 1
        if steps == at_step:
            raise KeyboardInterrupt
        torch.nn.utils.clip_grad_norm_(parameters, largest)

    return clip


def test_a_damaged_checkpoint_is_named(home: Home, tiny: CachePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "clip_gradients", _interrupting(7))
    with pytest.raises(KeyboardInterrupt):
        train_head(config_of(), home)
    monkeypatch.undo()
    (path,) = home.heads.glob("*/checkpoint/last.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=r"checkpoint cannot be read(.|\n)*--fresh"):
        train_head(config_of(), home)
    assert train_head(config_of(), home, fresh=True).record.complete


def test_the_global_generator_is_left_as_it_was(home: Home, tiny: CachePair) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    train_head(config_of(epochs=1), home)
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_names_its_step(home: Home, tiny: CachePair) -> None:
    data = load_training_data(config_of(), home)
    data.query_nd[data.train_p2[:, 0]] = np.nan
    with pytest.raises(TrainingError, match=r"not a finite number(.|\n)*step 0 \(epoch 1\)(.|\n)*isotropy nan"):
        run_only_the_loop(data)


def run_only_the_loop(data: Any) -> None:
    config = config_of()
    head = build_head(config.head_config(DIM), seed=0)
    with torch.random.fork_rng(devices=[]):
        list(
            loop.run_epochs(
                head,
                run._tensors(config, data, "cpu", data.train_p2),
                config,
                loop.make_optimizer(head, config),
                first_epoch=1,
            )
        )


def test_best_dev_keeps_the_best_epoch_even_if_it_is_the_start(home: Home, tiny: CachePair) -> None:
    # At such a rate no epoch can be better than the raw rows that the head starts from.
    settings: dict[str, Any] = {"init": "identity", "learning_rate": 1.0, "epochs": 2}
    best = train_head(config_of(**settings, select="best_dev"), home)
    last = train_head(config_of(**settings), home)
    assert [row["epoch"] for row in best.rows] == [0, 1, 2]
    assert best.rows[2]["dev_ndcg@10"] < best.rows[0]["dev_ndcg@10"]
    assert (best.record.provenance["epoch"], last.record.provenance["epoch"]) == (0, 2)
    assert best.record.complete
    rows_nd = np.eye(DIM, dtype=np.float32)
    np.testing.assert_array_equal(apply_head(load_head(best.record.folder).head, rows_nd, Role.QUERY), rows_nd)


def test_half_precision_tensors_hold_the_cached_rows_exactly(home: Home, tiny: CachePair) -> None:
    full = train_head(config_of(epochs=1), home)
    half = train_head(config_of(epochs=1, dtype="float16"), home)
    assert weights_of(full.record.folder) == weights_of(half.record.folder)
    assert full.record.name != half.record.name
    # Held once: a float32 copy beside it would make half precision the dearer one.
    data = load_training_data(config_of(dtype="float16"), home)
    assert (data.query_nd.dtype, data.passage_nd.dtype) == (np.float16, np.float16)


def test_pooled_input_is_the_row_times_its_norm(home: Home, tiny: CachePair) -> None:
    unit = load_training_data(config_of(), home)
    pooled = load_training_data(config_of(input="pooled"), home)
    np.testing.assert_allclose(pooled.passage_nd, unit.passage_nd * tiny.passage.norms[:, None])
    assert train_head(config_of(input="pooled", epochs=1), home).record.config.input == "pooled"


def test_splits_that_are_refused(home: Home, tiny: CachePair) -> None:
    for settings in ({"train": "test"}, {"dev": "test"}):
        with pytest.raises(TrainingError, match=r"'test' is the test split of tiny(.|\n)*dev, train"):
            load_training_data(config_of(**settings), home)
    with pytest.raises(TrainingError, match=r"unknown split of tiny 'trian'(.|\n)*did you mean 'train'"):
        load_training_data(config_of(train="trian"), home)


def test_dev_is_cut_from_train_by_query_where_there_is_none(
    home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]
) -> None:
    folder = tiny_collection("nodev", splits={"train": 40, "test": 10})
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.writelines(f"q{query}\tp{query + 50}\t1\n" for query in range(40))
    caches = cached("nodev", home, tiny_pair)
    data = load_training_data(config_of(dataset="nodev"), home)
    assert len(data.dev_qrels) == 4
    assert len(data.train_p2) == 2 * 36
    trained = {caches.query.ids[row] for row in data.train_p2[:, 0]}
    assert not trained & set(data.dev_qrels)
    assert len(load_training_data(config_of(dataset="nodev", dev=0.5), home).dev_qrels) == 20


def test_a_dev_query_that_is_also_judged_in_train_is_not_trained_on(
    home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]
) -> None:
    folder = tiny_collection("leaky")
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write("q41\tp3\t1\nq0\tnowhere\t1\n")
    caches = cached("leaky", home, tiny_pair)
    data = load_training_data(config_of(dataset="leaky"), home)
    assert "q41" in data.dev_qrels
    assert "q41" not in {caches.query.ids[row] for row in data.train_p2[:, 0]}
    assert len(data.train_p2) == 40


def test_a_collection_with_a_test_split_only_has_no_trained_head_but_has_a_raw_one(
    home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]
) -> None:
    tiny_collection("testonly", splits={"test": 10})
    cached("testonly", home, tiny_pair)
    fix = "ragcun-cache tune --dataset testonly --labels none"
    with pytest.raises(TrainingError, match=rf"no split to train on[\s\S]*found: +test\n[\s\S]*{fix}"):
        load_training_data(config_of(dataset="testonly"), home)
    trained = train_head(config_of(dataset="testonly", arch="untrained"), home)
    assert trained.rows[0]["dev_ndcg@10"] is None


def test_a_dev_split_can_be_trained_on_only_beside_another_dev(
    home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]
) -> None:
    tiny_collection("devonly", splits={"dev": 20, "test": 10})
    cached("devonly", home, tiny_pair)
    with pytest.raises(TrainingError, match=r"cannot be trained on 'dev'[\s\S]*fix: +--dev 0\.1"):
        load_training_data(config_of(dataset="devonly", train="dev"), home)
    assert len(load_training_data(config_of(dataset="devonly", train="dev", dev=0.1), home).train_p2) == 18


def test_where_the_whole_is_cached_twice_a_sample_asks_which_is_meant(
    home: Home, tiny: CachePair, cache_of: Callable[..., Path]
) -> None:
    for role in Role:
        content, spec = getattr(tiny, role).content_sha256, {"model_id": "other"}
        cache_of(home.caches, "tiny", role, ["a"], np.ones((1, DIM), np.float16), content_sha256=content, spec=spec)
    with pytest.raises(CacheError, match="tiny is cached by several encoders"):
        load_training_data(config_of(pairs=24), home)
    assert load_training_data(config_of(pairs=24, encoder=tiny.encoder), home).caches.encoder == tiny.encoder


def test_a_sample_of_pairs_uses_the_caches_of_the_whole(home: Home, tiny: CachePair) -> None:
    trained = train_head(config_of(pairs=24, epochs=1), home)
    assert trained.record.name.startswith("tiny-pairs24-seed0-lejepa")
    assert trained.record.provenance["train_pairs"] == 24
    assert trained.record.provenance["caches"]["collection"] == "tiny"
    assert trained.rows[0]["dev_corpus_rows"] == 120


@pytest.fixture
def two_each(home: Home, tiny_collection: Callable[..., Path], tiny_pair: Callable[..., CachePair]) -> CachePair:
    """A collection where each train query has two passages, the second of them also the first of the next query."""
    folder = tiny_collection("tiny")
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.writelines(f"q{query}\tp{query + 1}\t1\n" for query in range(40))
        qrels.write("q0\tnowhere\t1\n")
    return cached("tiny", home, tiny_pair)


def test_pairs_that_a_sample_left_out_are_no_negatives(home: Home, two_each: CachePair) -> None:
    config = config_of(arch="asymmetric", pairs=40, batch_size=40, epochs=1)
    data = load_training_data(config, home)
    trained = {query for query, _ in data.train_p2.tolist()}
    relevant = {(query, passage) for query in range(40) for passage in (query, query + 1)}
    assert {(query, passage) for query, passage in data.judged_p2.tolist()} == relevant
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watched(loop.PairTensors):
        def _negatives(self, query_b: torch.Tensor, passage_b: torch.Tensor) -> torch.Tensor:
            negative_bb = super()._negatives(query_b, passage_b)
            seen.extend(zip(torch.cartesian_prod(query_b, passage_b), negative_bb.flatten(), strict=True))
            return negative_bb

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PairTensors", Watched)
        train_head(config, home, data=data)
    told = {tuple(pair.tolist()): bool(negative) for pair, negative in seen}
    assert {pair for pair, negative in told.items() if not negative} == relevant & told.keys()
    # There are pairs that were not drawn, whose passage came with another query of the batch.
    assert relevant & told.keys() - {tuple(pair) for pair in data.train_p2.tolist()}
    assert trained == {query for query, _ in told}


def test_judgements_of_the_whole_are_read_where_a_loss_looks_at_negatives(home: Home, two_each: CachePair) -> None:
    for arch, read in (("isotropy", False), ("asymmetric", True)):
        config = config_of(arch=arch, pairs=40, epochs=1)
        data = load_training_data(config, home)
        train_head(config, home, data=data)
        assert ("judged_p2" in vars(data)) == read
    whole = load_training_data(config_of(arch="asymmetric"), home)
    assert whole.judged_p2 is whole.train_p2


def test_what_a_sample_left_out_is_part_of_its_name(home: Home, two_each: CachePair) -> None:
    config = config_of(arch="asymmetric", pairs=79)
    before = load_training_data(config, home)
    qrels = home.collections / "tiny" / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q0\talso-nowhere\t1\n")
    after = load_training_data(config, home)
    np.testing.assert_array_equal(after.train_p2, before.train_p2)
    assert run.run_name(config, after) != run.run_name(config, before)


def test_only_what_changes_the_result_changes_the_name(home: Home, tiny: CachePair) -> None:
    data = load_training_data(config_of(), home)
    name = run.run_name(config_of(), data)
    assert run.run_name(config_of(device="auto"), data) == name
    others = [config_of(learning_rate=1e-3), config_of(seed=1), config_of(init="random"), config_of(arch="isotropy")]
    assert len({name, *(run.run_name(other, data) for other in others)}) == 5


def test_two_processes_do_not_train_one_run(home: Home, tiny: CachePair) -> None:
    folder = home.heads / run.run_name(config_of(), load_training_data(config_of(), home))
    with run._alone_in(folder, wait=False), pytest.raises(TrainingError, match="trained by another process"):
        train_head(config_of(), home)


def test_learning_rate_warms_up_and_follows_the_schedule() -> None:
    config = config_of(learning_rate=1.0, warmup_steps=3, schedule="cosine", epochs=1)
    rates = [loop.learning_rate_at(step, 13, config) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert loop.learning_rate_at(12, 13, config_of(learning_rate=1.0)) == 1.0
    published = config_of(learning_rate=2e-5, schedule="published")
    # science of the published code: 2.0e-6, 2.18e-6, 2.36e-6 in epochs 1, 2, 3, the same for all steps of an epoch
    rates = [loop.learning_rate_at(step, 4, published) for step in (0, 3, 4, 7, 8, 4 * 500)]
    assert rates == pytest.approx([2e-6, 2e-6, 2.18e-6, 2.18e-6, 2.36e-6, 2e-5])


def test_a_longer_run_leaves_the_shorter_ones_bit_for_bit(home: Home, tiny: CachePair, tmp_path: Path) -> None:
    long = train_head(config_of(epochs=3), home, also_epochs=[1, 2, 7])
    left = {record.provenance["epochs"]: record for record in list_heads(home.heads)}
    assert sorted(left) == [1, 2, 3]
    for epochs in (1, 2):
        found = train_head(config_of(epochs=epochs), home)
        assert found.reused and found.record.name == left[epochs].name
        alone = train_head(config_of(epochs=epochs), home, fresh=True)
        assert not alone.reused
        assert alone.record.sha256 == left[epochs].sha256 != long.record.sha256
        timed = {"train_seconds", "measure_seconds"}
        rows = [[{k: v for k, v in row.items() if k not in timed} for row in one.rows] for one in (found, alone)]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"select": "best_dev"}])
def test_runs_that_know_their_length_leave_none(home: Home, tiny: CachePair, settings: dict[str, Any]) -> None:
    train_head(config_of(epochs=3, **settings), home, also_epochs=[1, 2])
    assert len(list_heads(home.heads)) == 1


def test_dev_loss_keeps_the_epoch_of_the_lowest_loss_and_never_the_start(home: Home, tiny: CachePair) -> None:
    settings: dict[str, Any] = {"epochs": 3, "init": "random", "isotropy": "published", "learning_rate": 3e-3}
    trained = train_head(config_of(**settings, select="dev_loss"), home)
    losses = [row["dev_loss"] for row in trained.rows]
    # Published isotropy is quadratic in scale: it falls as outputs shrink.
    assert max(losses[1:]) < losses[0]
    assert trained.record.provenance["epoch"] == 1 + int(np.argmin(losses[1:]))
    # At such a rate outputs explode, and the start has the lowest loss: it is no candidate.
    wild = train_head(config_of(**{**settings, "learning_rate": 10.0}, select="dev_loss"), home)
    losses = [row["dev_loss"] for row in wild.rows]
    assert losses[0] < min(losses[1:])
    assert wild.record.provenance["epoch"] == 1 + int(np.argmin(losses[1:]))
    assert train_head(config_of(**settings), home).rows[1]["dev_loss"] is None


def test_negatives_of_a_batch_are_what_no_judgement_makes_a_positive() -> None:
    pairs = loop.PairTensors(
        torch.zeros(3, 2), torch.zeros(4, 2), torch.tensor([[0, 0], [0, 1], [1, 1], [2, 3]], dtype=torch.int64)
    )
    negative_bb = pairs.batch(torch.tensor([0, 2, 3]), negatives=True).negatives()
    # Query 0 has passages 0 and 1, so passage 1, which came with query 1, is no negative of it.
    assert negative_bb.tolist() == [[False, False, True], [True, False, True], [True, True, False]]
    assert pairs.batch(torch.tensor([0, 2])).negatives().tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("arch", ["lejepa", "respred", "asymmetric"])
def test_an_epoch_on_a_device_without_float64(
    home: Home, tiny: CachePair, without_float64: Callable[[torch.Tensor], torch.Tensor], arch: str
) -> None:
    config = config_of(arch=arch, epochs=1)
    pairs = run._tensors(config, load_training_data(config, home), "cpu", np.array([[0, 0], [1, 1], [2, 2]]))

    def epoch(query_nd: torch.Tensor, passage_nd: torch.Tensor) -> loop.Epoch:
        head = build_head(config.head_config(DIM), seed=0)
        there = loop.PairTensors(query_nd, passage_nd, pairs.train_p2)
        with torch.random.fork_rng(devices=[]):
            (found,) = loop.run_epochs(head, there, config, loop.make_optimizer(head, config), first_epoch=1)
        return dataclasses.replace(found, seconds=0.0)

    there = [without_float64(rows_nd) for rows_nd in (pairs.query_nd, pairs.passage_md)]
    with pytest.raises(TypeError, match="no float64"):
        there[0].double()
    assert epoch(*there) == epoch(pairs.query_nd, pairs.passage_md)


@pytest.mark.parametrize("isotropy", ["published", "scale_free"])
def test_towers_apart_train_where_the_last_batch_is_one_pair(home: Home, tiny: CachePair, isotropy: str) -> None:
    config = config_of(arch="asymmetric", isotropy=isotropy, batch_size=13, epochs=2)
    trained = train_head(config, home)
    assert trained.record.provenance["train_pairs"] % config.batch_size == 1
    assert all(row["loss_isotropy"] > 0 for row in trained.rows[1:])


def test_judged_pairs_that_are_not_trained_on_are_no_negatives() -> None:
    trained_p2, judged_p2 = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 0], [0, 1], [1, 1]])
    for judged, expected in ((None, [[False, True], [True, False]]), (judged_p2, [[False, False], [True, False]])):
        pairs = loop.PairTensors(torch.zeros(2, 2), torch.zeros(2, 2), trained_p2, judged_p2=judged)
        assert pairs.batch(torch.tensor([0, 1]), negatives=True).negatives().tolist() == expected


def test_noise_keeps_the_length_and_has_the_cosine_that_it_says() -> None:
    torch.manual_seed(0)
    rows_bd = torch.randn(400, 768)
    noisy = loop.with_noise(PairBatch(rows_bd, rows_bd * 2), config_of(input_noise=0.5))
    cosine_b = torch.cosine_similarity(noisy.query_bd, rows_bd)
    assert cosine_b.mean().item() == pytest.approx(1 / 1.25**0.5, abs=0.002)
    torch.testing.assert_close(noisy.passage_bd.norm(dim=1), 2 * rows_bd.norm(dim=1))
    plain = PairBatch(rows_bd, rows_bd)
    assert loop.with_noise(plain, config_of()) is plain


def test_respred_is_watched(home: Home, tiny: CachePair) -> None:
    rows = train_head(config_of(arch="respred", input="unit", epochs=2), home).rows
    assert rows[0]["residual_mean"] is None
    assert rows[1]["residual_alpha_first"] == pytest.approx(0.1)
    assert (
        rows[2]["residual_alpha_last"]
        != rows[2]["residual_alpha_first"]
        == pytest.approx(rows[1]["residual_alpha_last"], abs=0.01)
    )
    assert 0 < rows[2]["residual_mean"] < rows[1]["residual_mean"] < rows[1]["residual_max"]
    assert rows[1]["loss_residual"] == pytest.approx(rows[1]["residual_square"])


@pytest.mark.parametrize("arch", ["respred", "asymmetric", "lejepa", "isotropy"])
def test_standardized_outputs_have_mean_0_and_std_1_over_the_training_pairs(
    home: Home, tiny: CachePair, arch: str
) -> None:
    trained = train_head(config_of(arch=arch, input="unit", epochs=1, output="standardized", similarity="l2"), home)
    data = load_training_data(config_of(), home)
    head = load_head(trained.record.folder).head
    outputs = [
        apply_head(head, vectors_nd[rows], role)
        for vectors_nd, rows, role in zip((data.query_nd, data.passage_nd), data.train_p2.T, Role, strict=True)
    ]
    std_e, mean_e = np.std(np.concatenate(outputs), axis=0, ddof=1), np.mean(np.concatenate(outputs), axis=0)
    np.testing.assert_allclose(mean_e, 0, atol=1e-4)
    np.testing.assert_allclose(std_e, 1, atol=1e-4)


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto")
    for name in ("gpu", "cuda:99", "CPU"):
        with pytest.raises(ConfigError, match=rf"unknown device '{name}'(.|\n)*auto(.|\n)*cpu"):
            resolve_device(name)


def test_what_a_killed_process_left_is_swept(home: Home, tiny: CachePair) -> None:
    folder = train_head(config_of(epochs=1), home).record.folder
    left = folder / "head.safetensors.partial-1"
    left.touch()
    assert train_head(config_of(epochs=1), home).reused
    assert not left.exists()


def test_every_epoch_is_told(home: Home, tiny: CachePair) -> None:
    told: list[dict[str, Any]] = []
    trained = train_head(config_of(epochs=2), home, on_epoch=told.append)
    assert told == trained.rows[1:]
    train_head(config_of(epochs=2), home, on_epoch=told.append)
    assert told == trained.rows[1:]
