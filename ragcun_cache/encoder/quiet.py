"""Silence for libraries that talk while they load or convert a model, some of them on stdout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers report nothing below an error, and show no progress, meanwhile."""
    from transformers.utils import logging as transformers_logging

    verbosity, with_progress = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if with_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Put the root logger back as it was: OpenVINO's converter lets it say errors only, and gives it a handler."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
