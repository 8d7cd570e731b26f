"""A frozen encoder: its settings settled at once, its weights loaded when the first text needs them."""

from __future__ import annotations

from functools import cached_property

from ragcun_cache.device import resolve_device
from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.choice import choose, is_decoder
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.weights import Weights
from ragcun_cache.role import Role


class FrozenModel:
    """An encoder whose settings are settled, and whose weights are loaded when the first text needs them."""

    def __init__(self, weights: Weights, config: EncodeConfig, threads: int | None = None) -> None:
        """Settle device, backend and precision. Raises ConfigError if this machine does not have them.

        ``threads`` is for OpenVINO on a CPU, which goes by no setting of the process; None: as many as it sees cores.
        """
        device = resolve_device(config.wanted_device)
        self.weights = weights
        self.threads = threads
        decoder = config.backend == "auto" and device == "cpu" and is_decoder(weights.folder)
        self.choice = choose(config.backend, config.precision, device, decoder=decoder)
        settled = {"device": device, "backend": self.choice.backend, "precision": self.choice.precision}
        self.config = config.model_copy(update=settled)

    def spec(self, role: Role) -> EncoderSpec:
        """Return the identity of the vectors that this model makes in ``role``."""
        return EncoderSpec.of(self.weights, role, self.config)

    @cached_property
    def backend(self) -> Backend:
        """The loaded model. Raises EncoderError if its weights are not those of its spec."""
        backend = self._load(self.spec(Role.PASSAGE).max_seq_length)
        self.weights.check_unchanged()  # Training may save into the folder of the model.
        if self.config.batch_tokens:
            backend.batch_tokens = self.config.batch_tokens
        return backend

    def _load(self, max_seq_length: int) -> Backend:
        precision = self.choice.precision
        if self.choice.backend == "openvino":
            from ragcun_cache.encoder.openvino_backend import OpenvinoBackend

            return OpenvinoBackend(
                self.weights, precision=precision, max_seq_length=max_seq_length, threads=self.threads
            )
        from ragcun_cache.encoder.torch_backend import TorchBackend

        return TorchBackend(
            self.weights.folder, device=self.config.device, precision=precision, max_seq_length=max_seq_length
        )
