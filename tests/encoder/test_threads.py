from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ragcun_cache.encoder.threads import Behind, ahead


def test_items_come_in_order_and_a_bounded_number_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            made.append(item)
            yield item

    seen = []
    for item in ahead(items(), depth=2):
        time.sleep(0.002)
        assert len(made) <= item + 1 + 2 + 1
        seen.append(item)
    assert seen == list(range(20))


def test_an_error_is_raised_when_its_turn_has_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items(), depth=5):
            seen.append(item)
    assert seen == [1, 2]


def test_closing_stops_the_thread_and_leaves_none_behind() -> None:
    before = threading.active_count()
    stopped = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        while not stopped.is_set():
            time.sleep(0.01)
        yield 1

    made = ahead(items(), stop=stopped.set)
    assert next(made) == 0
    made.close()
    assert threading.active_count() == before


def test_calls_behind_are_made_in_order_one_at_a_time() -> None:
    done: list[int] = []
    busy = threading.Lock()

    def call(number: int) -> None:
        with busy:
            time.sleep(0.002)
            done.append(number)

    with Behind() as behind:
        for number in range(10):
            behind.call(call, number)
            assert len(done) >= number - 1
    assert done == list(range(10))


def fail() -> None:
    raise OSError("disk")


def test_an_error_behind_is_raised_by_the_next_call_by_a_check_or_at_the_end() -> None:
    with pytest.raises(OSError, match="disk"), Behind() as behind:
        behind.call(fail)
        behind.call(lambda: None)
    with pytest.raises(OSError, match="disk"), Behind() as behind:
        behind.call(fail)
        while True:
            behind.check()
            time.sleep(0.001)
    with pytest.raises(OSError, match="disk"), Behind() as behind:
        behind.call(fail)


def test_an_error_in_front_is_not_replaced_by_one_behind() -> None:
    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        behind.call(fail)
        raise KeyboardInterrupt
