from __future__ import annotations

import copy

import torch
from torch import nn

from ragcun_cache.training.ema import MovingAverage


class Counter(nn.Module):
    """A parameter, a floating buffer and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))


def test_averages_what_is_floating_and_copies_the_rest() -> None:
    online, target = Counter(), Counter()
    average = MovingAverage(target, online, 0.9)
    for step in (1, 2):
        with torch.no_grad():
            online.weight.fill_(float(step))
            online.mean.fill_(10.0 * step)  # type: ignore[operator]
            online.count.fill_(step)  # type: ignore[operator]
        average.update()
    expected = 0.9 * 0.1 + 0.2
    torch.testing.assert_close(target.weight, torch.full((3,), expected))
    torch.testing.assert_close(target.mean, torch.full((2,), 10 * expected))
    assert target.count == 2
    torch.testing.assert_close(online.weight, torch.full((3,), 2.0))


def test_a_twin_that_does_not_move_keeps_the_target() -> None:
    online = nn.Linear(4, 4)
    target = copy.deepcopy(online)
    MovingAverage(target, online, 0.5).update()
    torch.testing.assert_close(target.weight, online.weight, rtol=0, atol=0)
