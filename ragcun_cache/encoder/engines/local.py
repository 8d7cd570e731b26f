"""The model in this process: one thread reads and tokenises ahead of the forward pass."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Protocol

from ragcun_cache.encoder.backend import Backend
from ragcun_cache.encoder.blocks import Block
from ragcun_cache.encoder.engines.engine import Encodings, Model
from ragcun_cache.encoder.forward import NOTHING, RowError, forward, tokenise_pieces
from ragcun_cache.encoder.phases import Phases
from ragcun_cache.encoder.threads import ahead
from ragcun_cache.encoder.tokens import PackedTokens, Tokens
from ragcun_cache.progress import Advance
from ragcun_cache.role import Role

_PARALLELISM = "TOKENIZERS_PARALLELISM"


class LoadableModel(Model, Protocol):
    """A model that can be run here."""

    @property
    def backend(self) -> Backend:
        """The loaded model."""


class LocalEngine:
    """Runs the forward pass in the thread that asks for it, so that Ctrl-C stops it between two batches."""

    name = "local"
    workers = 1

    def __init__(self, model: LoadableModel) -> None:
        self.model = model
        self.stopping = threading.Event()
        """Set when an encode has ended or was stopped: no more blocks are needed."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector; loads the model."""
        return self.model.backend.dim

    def encode(self, blocks: Iterator[Block], advance: Advance) -> Encodings:
        """Yield every block with what became of its strings, in the order of ``blocks``."""
        self.stopping.clear()
        spec = self.model.spec(Role.PASSAGE)  # The same for queries in all that is used here.
        prepared = ahead(self._prepare(blocks), stop=self.stopping.set)
        with _tokeniser_threads(self.model.config.device), closing(prepared):
            for block, tokens, phases in prepared:
                if not block.strings:
                    yield block, NOTHING
                    continue
                try:
                    encoded = forward(tokens, self.model.backend, spec.max_seq_length, spec.storage_dtype, advance)
                except RowError as error:
                    raise block.error(error) from None
                yield block, replace(encoded, phases=phases + encoded.phases)

    def _prepare(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, PackedTokens, Phases]]:
        for block in blocks:
            started = loaded = time.perf_counter()
            pieces: Iterator[Tokens] = iter(())
            if block.strings:
                backend = self.model.backend
                loaded = time.perf_counter()
                # Once stopped, nobody asks for what is made here: it only has to end soon.
                pieces = takewhile(lambda _: not self.stopping.is_set(), tokenise_pieces(block.strings, backend))
            tokens = PackedTokens.of(pieces)
            yield block, tokens, Phases(load=loaded - started, tokenise=time.perf_counter() - loaded)

    def close(self) -> None:
        """Nothing runs outside this process."""


@contextmanager
def _tokeniser_threads(device: str) -> Iterator[None]:
    """Let the tokeniser use every core where the model does not need them, and one where it does; undone at the end.

    A core that is taken from a forward pass on the CPU makes all others wait for it.
    """
    if _PARALLELISM in os.environ:
        yield
        return
    os.environ[_PARALLELISM] = "false" if device == "cpu" else "true"
    try:
        yield
    finally:
        os.environ.pop(_PARALLELISM, None)
