"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ragcun_cache.errors import TrainingError
from ragcun_cache.heads.head import Head, PairBatch
from ragcun_cache.progress import progress
from ragcun_cache.training.config import Schedule, TrainConfig
from ragcun_cache.training.ema import MovingAverage

_CHECK_EVERY_STEPS = 100


@dataclass(frozen=True)
class PairTensors:
    """All training vectors on the device, and the pairs as rows of them.

    ``query_nd`` (n, d) and ``passage_md`` (m, d) in the config's dtype; ``train_p2`` (p, 2) int64.
    """

    query_nd: Tensor
    passage_md: Tensor
    train_p2: Tensor

    def batch(self, chosen_b: Tensor) -> PairBatch:
        """Return the pairs ``chosen_b`` as float32."""
        rows_b2 = self.train_p2[chosen_b]
        return PairBatch(self.query_nd[rows_b2[:, 0]].float(), self.passage_md[rows_b2[:, 1]].float())


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch: means over its steps of the weighted ``loss`` and of each unweighted term."""

    number: int
    steps: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    seconds: float


def make_optimizer(head: Head, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) in its fused form over the parameters of ``head`` that learn."""
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Return the rate of ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == Schedule.CONSTANT:
        return config.learning_rate
    share_done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share_done))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of all that is random in ``epoch``: the order of the pairs and the units dropped.

    Because it needs nothing from the epochs before, a resumed run draws what an uninterrupted one would.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def clip_gradients(parameters: list[Tensor], limit: float) -> None:
    """Scale the gradients of ``parameters`` to a global norm of ``limit`` where it is above.

    torch's ``clip_grad_norm_`` multiplies by 1 where it is below, so as not to make a GPU wait for the norm. On the CPU
    nothing waits, and the same bits come without two more passes over all gradients.
    """
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if norm.is_cpu and norm < limit:
        return
    clip_grads_with_norm_(parameters, limit, norm)


def _keep_freed_memory() -> None:
    """Make glibc keep what a step frees, gradients above all, for the next step: new pages cost a tenth of a step.

    glibc gives memory back once twice the largest block that it ever unmapped lies free, of blocks of up to 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). Here it unmaps such a block. Other allocators are not touched by this.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def run_epochs(
    head: Head, pairs: PairTensors, config: TrainConfig, optimizer: torch.optim.Optimizer, *, first_epoch: int
) -> Iterator[Epoch]:
    """Train epochs ``first_epoch`` to ``config.epochs``, yielding after each; seeds the global generator.

    Each step: the losses of a batch, weighted (by 1 where the config has no weight) and summed; gradients clipped by
    their global norm; AdamW; EMA.
    Raises TrainingError, naming the step, if a loss is not a finite number.
    """
    weights = {"isotropy": config.lambda_isotropy, "predictive": config.lambda_predictive}
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    averages = [MovingAverage(target, online, config.ema) for target, online in head.ema_pairs() if config.ema]
    steps = math.ceil(len(pairs.train_p2) / config.batch_size)
    device = pairs.train_p2.device
    _keep_freed_memory()

    for epoch in range(first_epoch, config.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(epoch_seed(config.seed, epoch))
        order_p = torch.randperm(len(pairs.train_p2)).to(device)
        history: list[Tensor] = []
        names: list[str] = []
        head.train()
        with progress(f"epoch {epoch}/{config.epochs}", "pairs", len(order_p)) as advance:
            for chosen_b in torch.split(order_p, config.batch_size):
                step = (epoch - 1) * steps + len(history)
                rate = learning_rate_at(step, config.epochs * steps, config)
                for group in optimizer.param_groups:
                    group["lr"] = rate

                terms = head.losses(pairs.batch(chosen_b), step)
                loss = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                clip_gradients(learning, config.grad_clip)
                optimizer.step()
                for average in averages:
                    average.update()

                names = ["loss", *terms]
                history.append(torch.stack([loss, *terms.values()]).detach())
                if len(history) % _CHECK_EVERY_STEPS == 0:
                    _check_finite(history[-_CHECK_EVERY_STEPS:], names, step + 1 - _CHECK_EVERY_STEPS, epoch)
                advance(len(chosen_b))
        _check_finite(history, names, (epoch - 1) * steps, epoch)
        means = dict(zip(names, torch.stack(history).double().mean(dim=0).tolist(), strict=True))
        yield Epoch(epoch, len(history), means.pop("loss"), means, rate, time.perf_counter() - started)


def _check_finite(history: list[Tensor], names: list[str], first_step: int, epoch: int) -> None:
    """Look at many steps at once: asking after each would make a GPU wait for every answer."""
    finite_st = torch.stack(history).isfinite()
    if bool(finite_st.all()):
        return
    row = int((~finite_st.all(dim=1)).nonzero()[0, 0])
    values = ", ".join(f"{name} {float(value)}" for name, value in zip(names, history[row], strict=True))
    raise TrainingError(
        "a loss is not a finite number",
        where=f"step {first_step + row} (epoch {epoch})",
        found=values,
        fix="lower the learning rate, or look for a constant output or vectors that are not finite",
    )
