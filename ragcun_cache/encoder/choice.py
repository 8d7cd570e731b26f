"""Which backend and precision this machine encodes with, and why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ragcun_cache.encoder.config import BackendName, Precision, SettledBackend, SettledPrecision
from ragcun_cache.encoder.quiet import quiet_transformers
from ragcun_cache.errors import ConfigError, RagcunCacheError, unknown_choice


@dataclass(frozen=True)
class Choice:
    """A backend and a precision, and the reason in words; empty if the user asked for both."""

    backend: SettledBackend
    precision: SettledPrecision
    reason: str


def choose(backend: BackendName, precision: Precision, device: str, *, decoder: bool = False) -> Choice:
    """Settle what is left to ``auto``: on a CPU OpenVINO, in bf16 where the chip computes in it; on a GPU torch.

    A decoder gets torch on a CPU too: padded on the left, its first tokens may attend to nothing, and OpenVINO
    makes NaN of that; nor does it convert every decoder.

    int8 is never chosen: it loses accuracy, and is there for those who ask for it.

    Args:
        backend: as asked for.
        precision: as asked for.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        decoder: what :func:`is_decoder` says of the model.

    Raises:
        ConfigError: the device, the backend and the precision do not go together, or OpenVINO is not installed.
    """
    kind = device.partition(":")[0]
    has_openvino = find_spec("openvino") is not None
    if kind != "cpu":
        reason = f"torch, as the device is {device}"
        settled: SettledBackend = "torch"
        offered = {"torch"}
    else:
        settled = "openvino" if has_openvino and precision != "fp16" and not decoder else "torch"
        why_torch = "the model is a decoder, on which OpenVINO may fail" if decoder else "OpenVINO is not installed"
        reason = "OpenVINO, the fastest on a CPU" if settled == "openvino" else f"torch, as {why_torch}"
        offered = {"torch", "openvino"} if has_openvino else {"torch"}
    if backend != "auto":
        if backend not in offered:
            raise _unavailable(backend, device, offered)
        settled, reason = backend, ""
    known = _precisions(settled, kind)
    if precision != "auto":
        if precision not in known:
            raise unknown_choice(f"precision of {settled} on {kind}", precision, ["auto", *known])
        return Choice(settled, precision, reason)
    fast = computes_in_bf16(device)
    why = "bf16, which this chip computes in" if fast else "fp32, as this chip does not compute in bf16"
    return Choice(settled, "bf16" if fast else "fp32", f"{reason}; {why}" if reason else why)


def is_decoder(folder: Path) -> bool:
    """Whether the model in ``folder`` is built as a decoder alone (Qwen3, Mistral, Gemma, GPT-NeoX), by its config.

    Such a config has ``use_cache``, and its kind of model returns the cache, ``past_key_values``. BERT kinds have
    ``use_cache`` too, for when ``is_decoder`` makes decoders of them. Encoders that were built from a decoder's code
    (EuroBERT) are taken for one, which costs them speed and no accuracy.
    """
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # Whatever a config's own code raises: loading the model will say what is wrong.
        return False
    text = config.get_text_config()
    if text.is_encoder_decoder:
        return False
    returns_cache = "past_key_values" in (getattr(text, "keys_to_ignore_at_inference", None) or ())
    return bool(getattr(text, "is_decoder", False)) or (hasattr(text, "use_cache") and returns_cache)


def _unavailable(backend: str, device: str, offered: set[str]) -> RagcunCacheError:
    if backend == "openvino" and device.partition(":")[0] == "cpu":
        return ConfigError(
            "OpenVINO is not installed", fix="pip install openvino, or encode with --backend torch", found=backend
        )
    return unknown_choice(f"backend on {device}", backend, ["auto", *sorted(offered)])


def _precisions(backend: SettledBackend, kind: str) -> tuple[SettledPrecision, ...]:
    """A CPU would compute fp16 in fp32, by detours."""
    if backend == "openvino":
        return ("fp32", "bf16", "int8")
    return ("fp32", "bf16") if kind == "cpu" else ("fp32", "bf16", "fp16")


def computes_in_bf16(device: str) -> bool:
    """Whether the chip has units for bf16; others compute in it by detours, many times slower."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if kind != "cuda":
        return False
    with torch.cuda.device(device):  # Else the answer is that of the first GPU.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
