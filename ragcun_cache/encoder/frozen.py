"""A frozen encoder: its settings settled at once, its weights loaded when the first text needs them."""

from __future__ import annotations

from functools import cached_property

from ragcun_cache.device import resolve_device
from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.errors import EncoderError
from ragcun_cache.role import Role


class FrozenModel:
    """An encoder whose settings are settled, and whose weights are loaded when the first text needs them."""

    def __init__(self, weights: Weights, config: EncodeConfig) -> None:
        """Settle device and precision. Raises ConfigError if this machine does not have them."""
        from ragcun_cache.encoder.torch_backend import resolve_precision

        device = resolve_device(config.device)
        precision = resolve_precision(config.precision, device)
        self.weights = weights
        self.config = config.model_copy(update={"device": device, "precision": precision})

    def spec(self, role: Role) -> EncoderSpec:
        """Return the identity of the vectors that this model makes in ``role``."""
        assert self.config.precision != "auto"
        spec = EncoderSpec.of(self.weights, role, self.config, self.config.precision)
        if any(module["config"].get("include_prompt") is False for module in spec.modules):
            raise EncoderError(
                "models that leave the prompt out of pooling are not supported", where=self.weights.folder
            )
        return spec

    @cached_property
    def backend(self) -> Backend:
        """The loaded model."""
        from ragcun_cache.encoder.torch_backend import TorchBackend

        spec = self.spec(Role.PASSAGE)
        backend = TorchBackend(
            self.weights.folder,
            device=self.config.device,
            precision=spec.precision,
            max_seq_length=spec.max_seq_length,
        )
        if self.config.batch_tokens:
            backend.batch_tokens = self.config.batch_tokens
        return backend
