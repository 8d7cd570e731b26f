from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from ragcun_cache.training.loop import clip_gradients


def _parameters(scale: float) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    parameters = [torch.zeros(shape, requires_grad=True) for shape in ((7, 5), (5,))]
    for parameter in parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=draw)
    return [*parameters, torch.zeros(3, requires_grad=True)]  # the last one has no gradient


@pytest.mark.parametrize("scale", [1e-6, 0.1, 10.0, float("inf"), float("nan")])
def test_gradients_are_clipped_as_by_torch(scale: float) -> None:
    ours, theirs = _parameters(scale), _parameters(scale)
    clip_gradients(ours, 1.0)
    clip_grad_norm_(theirs, 1.0)
    assert (ours[-1].grad, theirs[-1].grad) == (None, None)
    for our, their in zip(ours[:-1], theirs[:-1], strict=True):
        assert our.grad is not None
        assert their.grad is not None
        if scale < 1:  # Below the limit nothing is touched.
            assert torch.equal(our.grad, their.grad)
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-6, atol=0.0, equal_nan=True)


_FAULTS = """
import resource
import torch
from ragcun_cache.training.loop import _keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        gradients = [torch.ones(1536, 768) for _ in range(4)]
        del gradients
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
_keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_the_memory_of_gradients_is_not_asked_for_again_at_every_step() -> None:
    told = subprocess.run([sys.executable, "-c", _FAULTS], check=True, capture_output=True, text=True).stdout
    before, after = map(int, told.split())
    assert after < 100 < before
