from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cache.cache.part import Part
from ragcun_cache.collections import find_collection
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.encoder.backend import OutOfMemory
from ragcun_cache.encoder.batches import Batch, plan_batches
from ragcun_cache.encoder.cost import CostModel, TimedBatch, drawn_batches, planned_batches, simulate
from ragcun_cache.encoder.probe import estimate_encode
from ragcun_cache.errors import EncoderError
from ragcun_cache.home import Home
from ragcun_cache.role import Role

LIMIT, BUDGET = 384, 1280


def seconds_of(rows: int, length: int) -> float:
    """What a made-up machine takes for a batch."""
    return 0.02 + rows * length * (5e-4 + 3e-7 * length)


def timed(batches: list[Batch], noise: float = 0.0, slower: float = 0.0) -> list[TimedBatch]:
    random = np.random.default_rng(0)
    order = random.permutation(len(batches)).tolist()
    drift = np.linspace(1.0, 1.0 + slower, len(batches))
    return [
        TimedBatch(len(one.rows), one.length, seconds_of(len(one.rows), one.length) * (1 + noise * random.normal()) * d)
        for one, d in zip((batches[at] for at in order), drift.tolist(), strict=True)
    ]


def probed(rows: np.ndarray, shard_rows: int, budget: int = BUDGET) -> list[Batch]:
    """The batches that a probe of these rows, of which it tokenises 20,000, runs."""
    return drawn_batches(planned_batches(rows[:20_000], len(rows), shard_rows, budget, LIMIT), 500, 24)


def lengths(rows: int, seed: int) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).lognormal(5, 0.8, rows), 3, LIMIT).astype(np.int32)


@pytest.mark.parametrize("shard_rows", [512, 16_384])
def test_the_cost_of_many_rows_is_known_from_a_few(shard_rows: int) -> None:
    rows = lengths(40_000, 1)
    cost = CostModel.fit(timed(probed(rows, shard_rows), noise=0.1))
    found = simulate(cost, rows[:20_000], len(rows), shard_rows, BUDGET, LIMIT)
    batches = [
        (len(one.rows), one.length)
        for start in range(0, len(rows), shard_rows)
        for one in plan_batches(rows[start : start + shard_rows].tolist(), BUDGET, LIMIT)
    ]
    true = sum(seconds_of(*one) for one in batches)
    assert abs(found.seconds - true) < 0.05 * true
    assert abs(found.padded_tokens - sum(a * b for a, b in batches)) < 0.02 * sum(a * b for a, b in batches)
    assert 0 < found.error < 0.05


@pytest.mark.parametrize("tokens_per_second", [1e5, 4e5])
@pytest.mark.parametrize("mean", [4.2, 5.5])
def test_a_gpu_that_is_only_fast_when_it_is_full_is_not_judged_by_small_batches(
    tokens_per_second: float, mean: float
) -> None:
    rows = np.clip(np.random.default_rng(3).lognormal(mean, 0.5, 200_000), 3, LIMIT).astype(np.int32)
    budget, shard_rows = 65_536, 65_536

    def seconds(batch: Batch) -> float:
        return max(0.01, len(batch.rows) * batch.length / tokens_per_second)

    batches = [TimedBatch(len(one.rows), one.length, seconds(one)) for one in probed(rows, shard_rows, budget)]
    found = simulate(CostModel.fit(batches), rows[:20_000], len(rows), shard_rows, budget, LIMIT)
    true = sum(
        seconds(batch)
        for start in range(0, len(rows), shard_rows)
        for batch in plan_batches(rows[start : start + shard_rows].tolist(), budget, LIMIT)
    )
    assert abs(found.seconds - true) < 0.1 * true


def test_a_batch_too_large_for_the_device_is_halved(
    home: Home, tiny_collection, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragcun_cache.encoder.torch_backend import TorchBackend

    tiny_collection()
    most, embed, sizes = [40], TorchBackend.embed, []

    def small(self: TorchBackend, input_ids: list[list[int]], length: int):  # type: ignore[no-untyped-def]
        if len(input_ids) * length > most[0]:
            raise OutOfMemory
        sizes.append(len(input_ids))
        return embed(self, input_ids, length)

    monkeypatch.setattr(TorchBackend, "embed", small)
    config = EncodeConfig(model=str(tiny_encoder), backend="torch", device="cpu")
    assert estimate_encode(find_collection("tiny", home), home, config).probed_rows > 0
    assert max(sizes) > 1
    most[0] = 1
    with pytest.raises(EncoderError, match="one text does not fit"):
        estimate_encode(find_collection("tiny", home), home, config)


def test_a_machine_that_slows_down_widens_the_error_bar() -> None:
    batches = probed(lengths(500, 2), 512)
    steady, slowing = CostModel.fit(timed(batches, noise=0.02)), CostModel.fit(timed(batches, noise=0.02, slower=1.0))
    assert slowing.error > 2 * steady.error


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 384), st.floats(1e-4, 10)), min_size=1, max_size=20),
    st.integers(1, 64),
    st.integers(1, 384),
)
def test_no_batch_costs_less_than_nothing(found: list[tuple[int, int, float]], rows: int, length: int) -> None:
    batches = [TimedBatch(*one) for one in found]
    cost = CostModel.fit(batches)
    assert all(coefficient >= 0 for coefficient in cost.coefficients)
    assert cost.seconds([rows], [length])[0] >= 0
    total = sum(one.seconds for one in batches)
    assert cost.seconds([one.rows for one in batches], [one.length for one in batches]).sum() == pytest.approx(total)


def test_a_dry_run_counts_what_the_encode_then_does(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    tiny_collection()
    collection, config = find_collection("tiny", home), EncodeConfig(model=str(tiny_encoder), device="cpu")
    estimate = estimate_encode(collection, home, config)
    assert not home.caches.exists(), "a dry run wrote something"
    assert estimate.probed_rows == 190
    assert estimate.seconds > 0
    assert 0 < estimate.error < 5
    reports = encode_collection(collection, home, config)
    for plan, report in zip(estimate.roles, reports, strict=True):
        manifest = report.manifest
        assert (plan.rows, plan.to_encode, plan.tokens) == (manifest.rows, report.encoded, manifest.tokens)
        assert plan.truncated_share == pytest.approx(manifest.truncated / manifest.rows)
    assert estimate.pad_share == pytest.approx(
        1 - sum(one.phases.tokens for one in reports) / sum(one.phases.padded_tokens for one in reports)
    )
    json.dumps(estimate.to_dict())


def test_what_is_there_or_in_another_cache_is_not_encoded(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    folder = tiny_collection()
    config = EncodeConfig(model=str(tiny_encoder), device="cpu", shard_rows=50)
    encode_collection(find_collection("tiny", home), home, config)
    again = estimate_encode(find_collection("tiny", home), home, config)
    assert [(plan.there, plan.to_encode) for plan in again.roles] == [(70, 0), (120, 0)]
    assert (again.probed_rows, again.error) == (0, 0.0)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "new", "text": "one more"}\n')
    changed = estimate_encode(find_collection("tiny", home), home, config)
    assert [(plan.there, plan.to_copy, plan.to_encode) for plan in changed.roles] == [(70, 0, 0), (0, 120, 1)]
    part = estimate_encode(find_collection("tiny", home), home, config, Part(1, 3))
    assert (part.roles[1].role, part.roles[1].rows) == (Role.PASSAGE, 50)
