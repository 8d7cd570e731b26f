from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ragcun_cache.errors import HeadError
from ragcun_cache.heads import apply_head
from ragcun_cache.heads.config import Arch, HeadConfig, Init, Input, InputScale, Isotropy, Term, trains
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.lejepa import LejepaHead
from ragcun_cache.heads.output import Standardize
from ragcun_cache.heads.projected import ProjectionHead
from ragcun_cache.heads.registry import build_head
from ragcun_cache.heads.respred import ResPredHead
from ragcun_cache.objectives.isotropy import isotropy_loss
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
@pytest.mark.parametrize("arch", [arch for arch in Arch if arch != Arch.UNTRAINED])
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
    torch.testing.assert_close(torch.cat(scaled.project_pairs(pairs)), plain.encode_query(x_nd * DIM**0.5))
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
    published, scale_free, sigreg = (
        build_head(config_of(Arch.ISOTROPY, isotropy=form, dropout=0.0), seed=0).losses(batch(), 0)["isotropy"]
        for form in Isotropy
    )
    assert scale_free.item() > 10 * published.item()
    # Outputs of such a small scale are as far from N(0, I) as a point is: about 0.4 n.
    assert sigreg.item() == pytest.approx(0.4 * 12, rel=0.1)


def test_only_terms_with_a_weight_are_computed() -> None:
    for terms in ([], ["isotropy"], ["predictive"], ["contrastive", "variance"], list(Term)[:4]):
        head = build_head(config_of(Arch.LEJEPA, terms=terms, ema=0.9), seed=0)
        assert set(head.losses(batch(), 0)) == set(terms)


def test_without_stop_gradient_the_target_is_learnt_from_too() -> None:
    for stop_gradient in (True, False):
        passage_bd = batch().passage_bd.clone().requires_grad_()
        config = config_of(Arch.LEJEPA, stop_gradient=stop_gradient, predictor_layers=0, dropout=0.0)
        head = build_head(config, seed=0)
        head.losses(PairBatch(batch().query_bd, passage_bd), 0)["predictive"].backward()  # type: ignore[no-untyped-call]
        assert bool(passage_bd.grad is not None and passage_bd.grad.any()) == (not stop_gradient)


@pytest.mark.parametrize(("layers", "tensors"), [(0, 0), (1, 2), (2, 4)])
def test_predictor_depth(layers: int, tensors: int) -> None:
    head = build_head(config_of(Arch.LEJEPA, predictor_layers=layers, predictor_init=Init.IDENTITY), seed=0)
    assert isinstance(head, LejepaHead) and head.predictor is not None
    assert len(list(head.predictor.parameters())) == tensors
    z_be = torch.randn(3, DIM)
    torch.testing.assert_close(head.predictor(z_be), z_be, rtol=0, atol=0)


def test_respred_predicts_with_a_bounded_residual() -> None:
    for tanh in (True, False):
        head = build_head(config_of(Arch.RESPRED, terms=list(Term), residual_tanh=tanh, dropout=0.0), seed=0)
        assert isinstance(head, ResPredHead) and head.predictor is not None
        z_be = torch.randn(5, DIM) * 100
        prediction_be, delta_be = head.predictor(z_be)
        torch.testing.assert_close(prediction_be, z_be + 0.1 * delta_be)
        assert bool(delta_be.abs().max() <= 1) == tanh
        terms = head.losses(batch(), 0)
        assert set(terms) == set(Term)
        assert head.watched()["residual_alpha"].item() == pytest.approx(0.1)
        # What is watched is what is penalised.
        torch.testing.assert_close(head.watched()["residual_square"], terms["residual"].detach())
    assert "predictor.alpha" not in build_head(config_of(Arch.RESPRED), seed=0, for_training=False).state_dict()


def test_asymmetric_towers_start_apart_or_together() -> None:
    rows_nd = unit_rows(6)

    def outputs(**settings: object) -> list[np.ndarray]:
        head = build_head(config_of(Arch.ASYMMETRIC, **settings), seed=0)
        return [apply_head(head, rows_nd, role) for role in (Role.QUERY, Role.PASSAGE)]

    apart, copied, identity = outputs(), outputs(towers="copied"), outputs(init=Init.IDENTITY)
    assert not np.allclose(apart[0], apart[1])
    np.testing.assert_array_equal(copied[0], copied[1])
    np.testing.assert_array_equal(apart[0], copied[0])
    np.testing.assert_array_equal(identity, [rows_nd, rows_nd])


def test_asymmetric_terms() -> None:
    head = build_head(config_of(Arch.ASYMMETRIC, terms=["isotropy", "contrastive"], dropout=0.0), seed=0)
    terms = head.losses(batch(), 0)
    assert set(terms) == {"isotropy", "contrastive"}
    z_query_be, z_passage_be = head.encode_query(batch().query_bd), head.encode_passage(batch().passage_bd)
    expected = (isotropy_loss(z_query_be, scale_free=False) + isotropy_loss(z_passage_be, scale_free=False)) / 2
    torch.testing.assert_close(terms["isotropy"], expected)
    predicting = build_head(config_of(Arch.ASYMMETRIC, terms=["predictive", "contrastive"]), seed=0)
    assert set(predicting.losses(batch(), 0)) == {"predictive", "contrastive"}


@pytest.mark.parametrize("isotropy", list(Isotropy))
def test_a_batch_of_one_pair_has_terms_and_gradients_in_separate_spaces_too(isotropy: Isotropy) -> None:
    terms = ["isotropy", "contrastive", "variance"]
    head = build_head(config_of(Arch.ASYMMETRIC, terms=terms, isotropy=isotropy, dropout=0.0), seed=0)
    losses = head.losses(batch(1), 0)
    assert (losses["isotropy"].item() == 0.0) == (isotropy != Isotropy.SIGREG)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("arch", [Arch.ISOTROPY, Arch.LEJEPA, Arch.RESPRED, Arch.ASYMMETRIC])
def test_every_term_has_a_gradient_that_is_finite(arch: Arch) -> None:
    for isotropy in Isotropy:
        head = build_head(config_of(arch, terms=list(Term), isotropy=isotropy, contrastive="triplet"), seed=0)
        terms = head.losses(batch(), 0)
        torch.stack(list(terms.values())).sum().backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_heads_with_nothing_to_learn_have_no_losses() -> None:
    for arch in (Arch.IDENTITY, Arch.UNTRAINED):
        assert not trains(arch)
        assert build_head(config_of(arch), seed=0).losses(batch(), 0) == {}


def test_outputs_on_a_device_without_float64_are_standardised_by_the_same_figures(
    without_float64: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    y_ne = torch.from_numpy(unit_rows(9))
    here, there = Standardize(config_of(Arch.UNTRAINED)), Standardize(config_of(Arch.UNTRAINED))
    here.fit(y_ne)
    there.fit(without_float64(y_ne))
    assert torch.equal(here.mean_e, there.mean_e) and torch.equal(here.std_e, there.std_e)
    torch.testing.assert_close(here(y_ne).std(dim=0), torch.ones(DIM))


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
