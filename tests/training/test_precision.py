from __future__ import annotations

from typing import Any

import pytest
import torch

from ragcun_cache.errors import ConfigError
from ragcun_cache.heads.head import PairBatch
from ragcun_cache.heads.registry import build_head
from ragcun_cache.training.config import Precision, TrainConfig, make_config
from ragcun_cache.training.loop import PairTensors, losses_of, make_optimizer, run_epochs, weighted

DIM = 32
ARCHS = ("isotropy", "lejepa", "respred", "asymmetric")


def config_of(precision: str, **settings: Any) -> TrainConfig:
    return make_config({"dataset": "x", "batch_size": 8, "device": "cpu", "precision": precision, **settings})


def batch(seed: int = 0) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    return PairBatch(*(torch.randn(8, DIM, generator=generator) for _ in range(2)))


@pytest.mark.parametrize("arch", ARCHS)
def test_bf16_is_what_layers_multiply_in_and_nothing_else(arch: str) -> None:
    config = config_of("bf16", arch=arch, init="random", lambda_contrastive=1.0, dropout=0.0)
    head = build_head(config.head_config(DIM), seed=0)
    multiplied_in = set()
    for module in head.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, given, made: multiplied_in.add(made.dtype))
    terms = losses_of(head, batch(), 0, config)
    assert multiplied_in == {torch.bfloat16}
    assert {term.dtype for term in terms.values()} == {torch.float32}
    weighted(terms, config).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    outside = losses_of(head, batch(), 0, config.model_copy(update={"precision": Precision.FP32}))
    for name, term in terms.items():
        assert term.item() == pytest.approx(outside[name].item(), rel=0.05), name
    assert {name: term.item() for name, term in terms.items()} != {name: term.item() for name, term in outside.items()}


@pytest.mark.parametrize("arch", ARCHS)
def test_heads_learn_nearly_the_same_in_either(arch: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = PairTensors(
        *(torch.randn(64, DIM, generator=generator) for _ in range(2)), torch.arange(64)[:, None].repeat(1, 2)
    )
    weights, moved = [], []
    for precision in Precision:
        config = config_of(precision.value, arch=arch, epochs=3, learning_rate=1e-3)
        head = build_head(config.head_config(DIM), seed=0)
        before = torch.nn.utils.parameters_to_vector(head.parameters()).detach().clone()
        with torch.random.fork_rng(devices=[]):
            list(run_epochs(head, tensors, config, make_optimizer(head, config), first_epoch=1))
        weights.append(torch.nn.utils.parameters_to_vector(head.parameters()).detach())
        moved.append(weights[-1] - before)
    assert not torch.equal(*weights)
    assert torch.cosine_similarity(*moved, dim=0) > 0.95


def test_a_head_with_nothing_to_learn_has_no_precision() -> None:
    assert make_config({"dataset": "x", "arch": "untrained"}).precision == Precision.FP32
    with pytest.raises(ConfigError, match="precision does not apply to arch untrained"):
        make_config({"dataset": "x", "arch": "untrained", "precision": "bf16"})
    with pytest.raises(ConfigError, match=r"precision 'fp16'(.|\n)*bf16"):
        make_config({"dataset": "x", "precision": "fp16"})
