from __future__ import annotations

import numpy as np
import pytest
import torch

from ragcun_cache.errors import HeadError
from ragcun_cache.heads import apply_head
from ragcun_cache.heads.config import Arch, HeadConfig, Init, Input, InputScale, Isotropy, trains
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.lejepa import LejepaHead
from ragcun_cache.heads.projected import ProjectionHead
from ragcun_cache.heads.registry import build_head
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

DIM = 24


def config_of(arch: Arch, **settings: object) -> HeadConfig:
    return HeadConfig.model_validate(
        {"arch": arch, "in_dim": DIM, "out_dim": DIM, "similarity": Similarity.COSINE} | settings
    )


def unit_rows(n: int, seed: int = 0) -> np.ndarray:
    rows_nd = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    unit_nd: np.ndarray = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return unit_nd


def batch(n: int = 6) -> PairBatch:
    return PairBatch(torch.from_numpy(unit_rows(n, 1)), torch.from_numpy(unit_rows(n, 2)))


@pytest.mark.parametrize("input_scale", list(InputScale))
@pytest.mark.parametrize("arch", [Arch.IDENTITY, Arch.ISOTROPY, Arch.LEJEPA])
def test_a_head_at_the_identity_returns_the_raw_rows_bit_for_bit(arch: Arch, input_scale: InputScale) -> None:
    head = build_head(config_of(arch, init=Init.IDENTITY, input_scale=input_scale, ema=0.9), seed=3)
    rows_nd = unit_rows(50)
    for role in Role:
        np.testing.assert_array_equal(apply_head(head, rows_nd, role), rows_nd)


def test_projection_has_the_published_shape_and_initialisation() -> None:
    head = build_head(config_of(Arch.UNTRAINED, in_dim=768, out_dim=512), seed=0)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.named_parameters()}
    assert list(shapes.values()) == [(1536, 768), (1536,), (512, 1536), (512,)]
    first, _, last, _ = head.parameters()
    for weight, fan_in in ((first, 768), (last, 1536)):
        assert weight.abs().max().item() == pytest.approx(fan_in**-0.5, rel=1e-3)


def test_architectures_of_one_seed_start_from_one_projection_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    heads = [build_head(config_of(arch, ema=0.9), seed=5) for arch in (Arch.UNTRAINED, Arch.ISOTROPY, Arch.LEJEPA)]
    other = build_head(config_of(Arch.UNTRAINED), seed=6)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    rows_nd = unit_rows(5)
    outputs = [apply_head(head, rows_nd, Role.QUERY) for head in [*heads, other]]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[3])


def test_input_scale_is_undone_at_the_output_and_seen_by_the_losses() -> None:
    scaled = build_head(config_of(Arch.UNTRAINED, input_scale=InputScale.SQRT_DIM), seed=0).eval()
    plain = build_head(config_of(Arch.UNTRAINED), seed=0).eval()
    assert isinstance(scaled, ProjectionHead)
    pairs = batch()
    x_nd = torch.cat([pairs.query_bd, pairs.passage_bd])
    torch.testing.assert_close(scaled.project_pairs(pairs), plain.encode_query(x_nd * DIM**0.5))
    torch.testing.assert_close(scaled.encode_query(x_nd) * DIM**0.5, plain.encode_query(x_nd * DIM**0.5))


@pytest.mark.parametrize("ema", [0.99, None])
def test_lejepa_learns_through_queries_and_never_through_the_target(ema: float | None) -> None:
    head = build_head(config_of(Arch.LEJEPA, ema=ema, dropout=0.0), seed=0)
    assert isinstance(head, LejepaHead)
    passage_bd = batch().passage_bd.clone().requires_grad_()
    terms = head.losses(PairBatch(batch().query_bd, passage_bd), 0)
    assert set(terms) == {"isotropy", "predictive"}
    terms["predictive"].backward()  # type: ignore[no-untyped-call]
    # The stop-gradient: what is predicted is not moved toward the prediction.
    assert passage_bd.grad is None or not passage_bd.grad.any()
    assert all(parameter.grad is not None for parameter in head.projection.parameters())
    assert bool(head.ema_pairs()) == (ema is not None)
    assert not any(parameter.requires_grad for target, _ in head.ema_pairs() for parameter in target.parameters())


def test_the_ema_target_never_drops_units() -> None:
    head = build_head(config_of(Arch.LEJEPA, ema=0.9, dropout=0.5), seed=0)
    assert isinstance(head, LejepaHead)
    head.train()
    assert head.predictor is not None
    assert head.target is not None
    assert (head.training, head.predictor.training, head.target.training) == (True, True, False)


def test_isotropy_form_is_the_configs() -> None:
    published, scale_free = (
        build_head(config_of(Arch.ISOTROPY, isotropy=form, dropout=0.0), seed=0).losses(batch(), 0)["isotropy"]
        for form in Isotropy
    )
    assert scale_free.item() > 10 * published.item()


def test_heads_with_nothing_to_learn_have_no_losses() -> None:
    for arch in (Arch.IDENTITY, Arch.UNTRAINED):
        assert not trains(arch)
        assert build_head(config_of(arch), seed=0).losses(batch(), 0) == {}


def test_apply_does_not_depend_on_batches_and_drops_no_units() -> None:
    head = build_head(config_of(Arch.UNTRAINED, out_dim=7, dropout=0.5), seed=0)
    rows_nd = unit_rows(20)
    whole = apply_head(head, rows_nd, Role.PASSAGE)
    assert whole.shape == (20, 7)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(apply_head(head, rows_nd, Role.PASSAGE, batch_rows=3), whole, rtol=1e-5, atol=1e-7)
    assert head.training
    assert apply_head(head, rows_nd[:0], Role.PASSAGE).shape == (0, 7)


def test_apply_refuses_vectors_of_another_dimension() -> None:
    with pytest.raises(HeadError, match=r"does not fit the vectors(.|\n)*\(rows, 24\)(.|\n)*\(4, 23\)"):
        apply_head(build_head(config_of(Arch.IDENTITY), seed=0), unit_rows(4)[:, :-1], Role.QUERY)


def test_pooled_input_is_the_row_times_its_norm() -> None:
    head = build_head(config_of(Arch.IDENTITY, input=Input.POOLED), seed=0)
    rows_nd = unit_rows(3)
    norms_n = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    np.testing.assert_array_equal(apply_head(head, rows_nd, Role.QUERY, norms_n=norms_n), rows_nd * norms_n[:, None])
    with pytest.raises(HeadError, match="needs the norms"):
        apply_head(head, rows_nd, Role.QUERY)


def test_a_predictor_at_the_identity_predicts_the_querys_own_vector() -> None:
    head = build_head(config_of(Arch.LEJEPA, init=Init.IDENTITY, predictor_init=Init.IDENTITY, ema=0.9), seed=0)
    pairs = batch()
    expected = torch.nn.functional.mse_loss(pairs.query_bd, pairs.passage_bd)
    torch.testing.assert_close(head.losses(pairs, 0)["predictive"], expected)
    random = build_head(config_of(Arch.LEJEPA, init=Init.IDENTITY, ema=0.9), seed=0)
    assert random.losses(pairs, 0)["predictive"].item() != pytest.approx(expected.item())
