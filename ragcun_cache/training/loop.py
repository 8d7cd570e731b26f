"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ragcun_cache.errors import TrainingError
from ragcun_cache.heads.config import Arch, Term
from ragcun_cache.heads.head import Head, PairBatch
from ragcun_cache.progress import progress
from ragcun_cache.training.config import Precision, Schedule, TrainConfig
from ragcun_cache.training.ema import MovingAverage

_CHECK_EVERY_STEPS = 100


@dataclass(frozen=True)
class PairTensors:
    """All training vectors on the device, and the pairs as rows of them.

    ``query_nd`` (n, d) and ``passage_md`` (m, d) in the config's dtype; ``train_p2`` (p, 2) int64. ``judged_p2`` (j, 2)
    int64 are all pairs that are no negatives of each other; None: the training pairs.
    """

    query_nd: Tensor
    passage_md: Tensor
    train_p2: Tensor
    judged_p2: Tensor | None = field(default=None, kw_only=True)

    def batch(self, chosen_b: Tensor, *, negatives: bool = False) -> PairBatch:
        """Return the pairs ``chosen_b`` as float32, with what is no positive of what if ``negatives`` are wanted."""
        query_b, passage_b = self.train_p2[chosen_b].unbind(dim=1)
        query_bd, passage_bd = self.query_nd[query_b].float(), self.passage_md[passage_b].float()
        return PairBatch(query_bd, passage_bd, self._negatives(query_b, passage_b) if negatives else None)

    def _negatives(self, query_b: Tensor, passage_b: Tensor) -> Tensor:
        """Return which passages of a batch are judged relevant to none but other queries of it: (b, b) bool."""
        number_bb = query_b[:, None] * len(self.passage_md) + passage_b
        place_bb = torch.searchsorted(self._pair_numbers, number_bb).clamp_(max=len(self._pair_numbers) - 1)
        return self._pair_numbers[place_bb] != number_bb

    @cached_property
    def _pair_numbers(self) -> Tensor:
        """One number for each judged pair, (j,) int64, ascending."""
        query_j, passage_j = (self.train_p2 if self.judged_p2 is None else self.judged_p2).unbind(dim=1)
        return (query_j * len(self.passage_md) + passage_j).sort().values


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch: means over its steps of the weighted ``loss`` and of each unweighted term.

    ``watched`` are the figures that a head only watches: their mean, and under ``…_first`` and ``…_last`` those of the
    first and the last step.
    """

    number: int
    steps: int
    loss: float
    terms: dict[str, float]
    watched: dict[str, float]
    learning_rate: float
    seconds: float


def make_optimizer(head: Head, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) in its fused form over the parameters of ``head`` that learn."""
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def learning_rate_at(step: int, epoch_steps: int, config: TrainConfig) -> float:
    """Return the rate of ``step`` (from 0; ``epoch_steps`` an epoch): a linear warm-up, then what the schedule says."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == Schedule.CONSTANT:
        return config.learning_rate
    if config.schedule == Schedule.PUBLISHED:
        # LinearLR(start_factor=0.1, total_iters=100), where an iteration was an epoch.
        return config.learning_rate * (0.1 + 0.9 * min(step // epoch_steps, 100) / 100)
    total_steps = config.epochs * epoch_steps
    share_done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share_done))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of all that is random in ``epoch``: the order of the pairs and the units dropped.

    Because it needs nothing from the epochs before, a resumed run draws what an uninterrupted one would.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def clip_gradients(parameters: list[Tensor], limit: float) -> None:
    """Scale the gradients of ``parameters`` to a global norm of ``limit`` where it is above.

    As torch's ``clip_grad_norm_``, which multiplies by 1 where the norm is below, so as not to make a GPU wait for it.
    On the CPU nothing waits, and two passes over all gradients are saved; and there a dot product is the faster norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients or not all(gradient.is_cpu for gradient in gradients):
        clip_grads_with_norm_(parameters, limit, get_total_norm(gradients))
        return
    norm = torch.stack([torch.dot(flat_m, flat_m) for flat_m in map(torch.flatten, gradients)]).sum().sqrt()
    if not norm < limit:
        clip_grads_with_norm_(parameters, limit, norm)


def _forget_gradients(parameters: list[Tensor]) -> None:
    """Do what the optimiser's ``zero_grad`` does: its own bookkeeping takes a hundredth of a step."""
    for parameter in parameters:
        parameter.grad = None


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

    Each step: noise on the input, where the config asks for it; the losses of a batch, weighted (by 1 where the config
    has no weight) and summed; gradients clipped by their global norm; AdamW; EMA.
    Raises TrainingError, naming the step, if a loss is not a finite number.
    """
    contrasts = needs_negatives(config)
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
        watched: list[Tensor] = []
        names: list[str] = []
        watched_names: list[str] = []
        head.train()
        with progress(f"epoch {epoch}/{config.epochs}", "pairs", len(order_p)) as advance:
            for chosen_b in torch.split(order_p, config.batch_size):
                step = (epoch - 1) * steps + len(history)
                rate = learning_rate_at(step, steps, config)
                for group in optimizer.param_groups:
                    group["lr"] = rate

                batch = with_noise(pairs.batch(chosen_b, negatives=contrasts), config)
                terms = losses_of(head, batch, step, config)
                loss = weighted(terms, config)
                _forget_gradients(learning)
                loss.backward()  # type: ignore[no-untyped-call]
                clip_gradients(learning, config.grad_clip)
                optimizer.step()
                for average in averages:
                    average.update()

                names = ["loss", *terms]
                history.append(torch.stack([loss, *terms.values()]).detach())
                if seen := head.watched():
                    watched_names = list(seen)
                    watched.append(torch.stack(list(seen.values())))
                if len(history) % _CHECK_EVERY_STEPS == 0:
                    _check_finite(history[-_CHECK_EVERY_STEPS:], names, step + 1 - _CHECK_EVERY_STEPS, epoch)
                advance(len(chosen_b))
        _check_finite(history, names, (epoch - 1) * steps, epoch)
        means = dict(zip(names, _float64(history).mean(dim=0).tolist(), strict=True))
        figures = _summary(watched_names, watched)
        yield Epoch(epoch, len(history), means.pop("loss"), means, figures, rate, time.perf_counter() - started)


def losses_of(head: Head, batch: PairBatch, step: int, config: TrainConfig) -> dict[str, Tensor]:
    """Return the loss terms of a batch, the head's layers computed in the config's precision."""
    bf16 = config.precision == Precision.BF16
    with torch.autocast(batch.query_bd.device.type, torch.bfloat16) if bf16 else nullcontext():
        return head.losses(batch, step)


def needs_negatives(config: TrainConfig) -> bool:
    """Return whether a loss looks at which passages of a batch are no positives; heads of the user's own may."""
    return not isinstance(config.arch, Arch) or Term.CONTRASTIVE in config.terms


def weighted(terms: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """Return the weighted sum of the loss terms, a scalar."""
    return torch.stack([config.weight(name) * term for name, term in terms.items()]).sum()


def with_noise(batch: PairBatch, config: TrainConfig) -> PairBatch:
    """Return the batch with Gaussian noise on its vectors, ``input_noise`` times as long as they are.

    A stand-in for the encoder's own dropout, which ctn/ragcun left on while it trained heads: a row x becomes
    ``x + noise ||x|| g / sqrt(d)`` with g ~ N(0, I), brought back to the length of x. The cosine between the two is
    about ``1 / sqrt(1 + noise^2)``.
    """
    if not config.input_noise:
        return batch
    return replace(batch, query_bd=_noisy(batch.query_bd, config), passage_bd=_noisy(batch.passage_bd, config))


def _noisy(x_bd: Tensor, config: TrainConfig) -> Tensor:
    norm_b1 = x_bd.norm(dim=1, keepdim=True)
    noisy_bd: Tensor = x_bd + torch.randn_like(x_bd) * (config.input_noise / math.sqrt(x_bd.shape[1])) * norm_b1
    return functional.normalize(noisy_bd, dim=1).mul_(norm_b1)


def _summary(names: list[str], watched: list[Tensor]) -> dict[str, float]:
    if not watched:
        return {}
    values_sw = _float64(watched)
    means, first, last = values_sw.mean(dim=0).tolist(), values_sw[0].tolist(), values_sw[-1].tolist()
    figures: dict[str, float] = {}
    for place, name in enumerate(names):
        figures |= {name: means[place], f"{name}_first": first[place], f"{name}_last": last[place]}
    return figures


def _float64(rows: list[Tensor]) -> Tensor:
    """Return the rows as one float64 table on the CPU: the GPUs of Apple have no float64."""
    return torch.stack(rows).cpu().double()


@torch.no_grad()
def dev_loss(head: Head, pairs: PairTensors, config: TrainConfig) -> float:
    """Return the mean weighted loss over dev ``pairs`` in float32, in batches of the training's size, without dropout.

    Predictive and residual terms are left out, as in ctn/ragcun's ``validate()``. Nan if there is no other term.
    """
    was_training = head.training
    head.eval()
    losses: list[Tensor] = []
    for chosen_b in torch.split(torch.arange(len(pairs.train_p2), device=pairs.train_p2.device), config.batch_size):
        if len(chosen_b) == config.batch_size or not losses:
            terms = head.losses(pairs.batch(chosen_b, negatives=needs_negatives(config)), 0)
            kept = {name: term for name, term in terms.items() if name not in (Term.PREDICTIVE, Term.RESIDUAL)}
            losses.append(weighted(kept, config) if kept else torch.tensor(math.nan))
    head.train(was_training)
    return float(torch.stack(losses).mean())


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
