"""What has gone wrong with a head, in words, read off its metrics table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

# Figures in these comments are of all-mpnet-base-v2 on msmarco-12k, as measure_head gives them.
#
# Weight decay and the end of dropout move the scale of healthy heads by some tens of per cent, a loss that is quadratic
# in it by far more: the published one at its written rate goes below a third within two epochs.
COLLAPSED_STD = 1 / 3
# Raw vectors have an effective rank of 0.67 of their dims, a random projection of them 0.53; rank 5 in 768 is 0.007.
COLLAPSED_RANK = 0.1
# The biases of a random projection, alike in all outputs, give it a mean cosine of 0.87, and it ranks nearly as raw.
COLLAPSED_COSINE = 0.99
# A part of the way from chance to 1. Raw and a shared random projection are at 0.99; heads that know nothing of each
# other at 0, within 0.02 for eight batches of 64.
LOST_ALIGNMENT = 0.05
# As for the scale: a residual that is used stays near its size, a penalty with nothing against it takes it all.
COLLAPSED_RESIDUAL = 1 / 3


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong: its name, the first epoch that shows it, the figures it is read off, and a sentence."""

    name: str
    epoch: int
    figures: dict[str, float]
    text: str


def alarms(rows: Sequence[Row], kept_epoch: int | None = None) -> list[Alarm]:
    """Return what is wrong with a head by its metrics table, a row an epoch from the untrained start; none is good.

    ``kept_epoch`` is the epoch whose weights are kept (the last if None). A column that a table does not have, or that
    is null, raises no alarm.

    * scale collapse: ``output_std`` below a third of the start's;
    * dimensional collapse: ``effective_rank`` below a tenth of ``rank_limit``, or ``mean_cosine`` above 0.99;
    * residual collapse: ``residual_mean`` (mean |delta| of an epoch) of the last epoch below a third of
      ``residual_mean_first`` (of the first batch of the training);
    * lost alignment: ``in_batch_accuracy`` has come less than a twentieth of the way from ``in_batch_chance`` to 1, at
      the start or at the end;
    * no better than untrained, no better than raw: ``dev_ndcg@10`` of the kept epoch not above that of epoch 0, or
      ``raw_dev_ndcg@10``; only where something was trained.
    """
    if not rows:
        return []
    first_batch = next((row["residual_mean_first"] for row in rows if row.get("residual_mean_first") is not None), None)
    found = [
        _first(_scale(row, rows[0]) for row in rows),
        _first(_dimensions(row) for row in rows),
        _residual(rows[-1], first_batch),
        _first(_alignment(row) for row in (rows[0], rows[-1])),
    ]
    if len(rows) > 1:
        kept = next((row for row in rows if row["epoch"] == kept_epoch), rows[-1])
        found += [_untrained(kept, rows[0]), _raw(kept)]
    return [alarm for alarm in found if alarm is not None]


def _first(found: Iterator[Alarm | None]) -> Alarm | None:
    return next((alarm for alarm in found if alarm is not None), None)


def _figures(row: Row, *names: str) -> tuple[float, ...] | None:
    """Return the figures of a row, None if one of them is not known."""
    values = tuple(row.get(name) for name in names)
    return None if None in values else values  # type: ignore[return-value]


def _scale(row: Row, start: Row) -> Alarm | None:
    now, before = _figures(row, "output_std"), _figures(start, "output_std")
    if now is None or before is None or now[0] >= COLLAPSED_STD * before[0]:
        return None
    figures = {"output_std": now[0], "output_std_at_start": before[0]}
    text = (
        f"the outputs have shrunk: their standard deviation is {now[0]:.3g}, {now[0] / before[0]:.2f} of the"
        f" {before[0]:.3g} at the start"
    )
    return Alarm("scale collapse", row["epoch"], figures, text)


def _dimensions(row: Row) -> Alarm | None:
    rank, cosine = _figures(row, "effective_rank", "rank_limit"), _figures(row, "mean_cosine")
    if rank is not None and rank[1] > 1 and rank[0] < COLLAPSED_RANK * rank[1]:
        figures = {"effective_rank": rank[0], "rank_limit": rank[1]}
        text = f"the outputs use few directions: their effective rank is {rank[0]:.1f}, and {rank[1]:.0f} are possible"
        return Alarm("dimensional collapse", row["epoch"], figures, text)
    if cosine is not None and cosine[0] > COLLAPSED_COSINE:
        text = f"nearly all passages point the same way: the mean cosine of two is {cosine[0]:.4f}"
        return Alarm("dimensional collapse", row["epoch"], {"mean_cosine": cosine[0]}, text)
    return None


def _residual(row: Row, first: float | None) -> Alarm | None:
    mean = row.get("residual_mean")
    if mean is None or first is None or mean >= COLLAPSED_RESIDUAL * first:
        return None
    figures = {"residual_mean": mean, "residual_mean_first": first}
    text = (
        f"the predictor hardly corrects any more: its mean residual is {mean:.3g}, {mean / first:.2f} of the"
        f" {first:.3g} in the first batch"
    )
    return Alarm("residual collapse", row["epoch"], figures, text)


def _alignment(row: Row) -> Alarm | None:
    found = _figures(row, "in_batch_accuracy", "in_batch_chance")
    if found is None:
        return None
    accuracy, chance = found
    if chance == 1 or (accuracy - chance) / (1 - chance) >= LOST_ALIGNMENT:
        return None
    figures = {"in_batch_accuracy": accuracy, "in_batch_chance": chance}
    text = (
        f"queries do not find their passages: {accuracy:.1%} are right in a batch of training pairs, and a guess is in"
        f" {chance:.1%}"
    )
    return Alarm("lost alignment", row["epoch"], figures, text)


def _untrained(kept: Row, start: Row) -> Alarm | None:
    now, before = _figures(kept, "dev_ndcg@10"), _figures(start, "dev_ndcg@10")
    if now is None or before is None or now[0] > before[0]:
        return None
    figures = {"dev_ndcg@10": now[0], "dev_ndcg@10_at_start": before[0]}
    text = f"training has not helped: dev NDCG@10 is {now[0]:.4f}, and {before[0]:.4f} before training"
    return Alarm("no better than untrained", kept["epoch"], figures, text)


def _raw(kept: Row) -> Alarm | None:
    found = _figures(kept, "dev_ndcg@10", "raw_dev_ndcg@10")
    if found is None or found[0] > found[1]:
        return None
    figures = dict(zip(("dev_ndcg@10", "raw_dev_ndcg@10"), found, strict=True))
    text = f"the encoder does as well without this head: dev NDCG@10 is {found[0]:.4f}, and {found[1]:.4f} raw"
    return Alarm("no better than raw", kept["epoch"], figures, text)
