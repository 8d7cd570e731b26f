"""What runs the model: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

from ragcun_cache.encoder.blocks import Block
from ragcun_cache.encoder.choice import Choice
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.forward import Encoded
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.progress import Advance
from ragcun_cache.role import Role

Encodings = Generator[tuple[Block, Encoded], None, None]
"""Every block with what became of its strings."""


class Model(Protocol):
    """An encoder whose settings are settled, wherever it will run."""

    @property
    def config(self) -> EncodeConfig:
        """The settings, nothing left on ``auto``."""

    @property
    def choice(self) -> Choice:
        """Backend and precision, and why these."""

    def spec(self, role: Role) -> EncoderSpec:
        """Return the identity of the vectors that it makes in ``role``."""


class Engine(Protocol):
    """Encodes blocks. It never writes: whoever asked puts the shards into the cache, one after the other."""

    name: str
    """For reports."""

    @property
    def workers(self) -> int:
        """Processes that run the model."""

    @property
    def model(self) -> Model:
        """What it runs."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector; loads the model."""

    def encode(self, blocks: Iterator[Block], advance: Advance) -> Encodings:
        """Yield every block with what became of its strings, in the order of ``blocks``.

        The blocks are made in a thread, a few ahead. ``advance`` is told rows and tokens as they are done; what it
        raises ends the encode.

        Raises:
            EncoderError: a text cannot be encoded, or what runs the model broke down.
        """

    def close(self) -> None:
        """End all processes of its own."""
