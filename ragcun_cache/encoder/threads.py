"""Work that overlaps with the forward pass: what comes before it a little ahead, what comes after it behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def ahead(
    items: Iterator[Item], depth: int = 1, stop: Callable[[], object] = lambda: None
) -> Generator[Item, None, None]:
    """Yield ``items`` in their order, while a thread makes up to ``depth`` of the next ones.

    What ``items`` raises is raised here when its turn has come. Whoever closes this generator, or is interrupted, waits
    only for the item in the making; ``stop`` is called first, to make that short.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        pending = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, items, _END))
            yield item
    finally:
        stop()
        pool.shutdown(cancel_futures=True)


class Behind:
    """Makes calls one after the other in a thread. Whoever makes the next call waits for the last, so none pile up.

    Use as a context manager: at the end the last call is waited for, and what it raised is raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._last: Future[None] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None and self._last is not None:
            self._last.result()

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Wait for the last call, raise what it raised, and start the next."""
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(function, *arguments)

    def check(self) -> None:
        """Raise what the last call raised, if it has ended; never waits."""
        if self._last is not None and self._last.done():
            self._last.result()
