"""The curves of trained heads, for TensorBoard to show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ragcun_cache.errors import ConfigError
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.training.run import METRICS_NAME


def write_curves(heads: Iterable[HeadRecord], folder: Path) -> None:
    """Write every figure of every epoch of ``heads`` below ``folder``, a folder a head; those there already stay.

    Raises ConfigError if tensorboard is not installed.
    """
    import polars

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("writing curves needs tensorboard", fix="pip install 'ragcun-cache[tensorboard]'") from None
    for head in heads:
        if (folder / head.name).exists():
            continue
        with SummaryWriter(str(folder / head.name)) as writer:
            for row in polars.read_parquet(head.folder / METRICS_NAME).to_dicts():
                figures = {name: value for name, value in row.items() if name != "epoch" and value is not None}
                for name, value in figures.items():
                    writer.add_scalar(name, value, row["epoch"])
