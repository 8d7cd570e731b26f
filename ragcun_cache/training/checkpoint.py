"""The state of a run between two epochs, in one file that is either whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ragcun_cache.errors import TrainingError
from ragcun_cache.files import atomic_file
from ragcun_cache.heads.head import Head

CHECKPOINT_NAME = "checkpoint/last.safetensors"


def save_checkpoint(path: Path, head: Head, optimizer: torch.optim.Optimizer, rows: list[dict[str, Any]]) -> None:
    """Write the head (with target and predictor), the optimiser's state, and the metrics rows so far.

    The scalars travel in the header of the same file, so tensors and scalars cannot be of two different epochs.
    No generator state is kept: each epoch seeds its own (``loop.epoch_seed``).
    """
    state = optimizer.state_dict()
    tensors = {f"head/{name}": tensor for name, tensor in head.state_dict().items()}
    for index, entries in state["state"].items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in entries.items()}
    scalars = {"rows": rows, "param_groups": state["param_groups"]}
    with atomic_file(path) as handle:
        handle.write(
            save(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                metadata={"scalars": json.dumps(scalars)},
            )
        )


def load_checkpoint(path: Path, head: Head, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Put ``head`` and ``optimizer`` in the state of the file, and return the metrics rows.

    Raises TrainingError if the file cannot be read or does not fit.
    """
    head_state: dict[str, torch.Tensor] = {}
    optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            scalars = json.loads(file.metadata()["scalars"])
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                kind, name = key.split("/", 1)
                if kind == "head":
                    head_state[name] = file.get_tensor(key)
                else:
                    index, entry = name.split("/")
                    optimizer_state.setdefault(int(index), {})[entry] = file.get_tensor(key)
        head.load_state_dict(head_state, strict=True)
        optimizer.load_state_dict({"state": optimizer_state, "param_groups": scalars["param_groups"]})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            "the checkpoint cannot be read", where=path, found=error, fix="train from the start with --fresh"
        ) from error
    rows: list[dict[str, Any]] = scalars["rows"]
    return rows
