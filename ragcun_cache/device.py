"""The device that training runs on."""

from __future__ import annotations

from ragcun_cache.errors import unknown_choice


def resolve_device(name: str) -> str:
    """Return the device that ``name`` (``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``) stands for on this machine.

    ``auto`` is the first GPU if there is one, else the CPU. Raises ConfigError naming what this machine has.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return (gpus + mps + ["cpu"])[0]
    available = ["auto", "cpu", *(["cuda", *gpus] if gpus else []), *mps]
    if name not in available:
        raise unknown_choice("device", name, available)
    return name
