"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_LINE_EVERY_SECONDS = 10.0
_muted = False


def mute() -> None:
    """Show no progress from now on in this process: for a worker, whose parent shows it."""
    global _muted
    _muted = True


class Advance(Protocol):
    """Report ``amount`` more units done, with figures to show beside the bar (such as ``tokens=1024``)."""

    def __call__(self, amount: float, **extra: float) -> None:
        """Add ``amount``; each keyword is summed and shown as a rate of its own."""


def silent(amount: float, **extra: float) -> None:
    """Show nothing: an ``Advance`` for work that nobody waits for."""


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Rates:
    """Sums and rates per second of what a caller has reported."""

    def __init__(self, unit: str, total: float | None) -> None:
        self.unit = unit
        self.total = total
        self.done = 0.0
        self.extra: dict[str, float] = {}
        self.started = time.monotonic()

    def add(self, amount: float, extra: dict[str, float]) -> None:
        self.done += amount
        for name, value in extra.items():
            self.extra[name] = self.extra.get(name, 0.0) + value

    def text(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.done / elapsed:,.0f} {self.unit}/s"]
        parts += [f"{value / elapsed:,.0f} {name}/s" for name, value in self.extra.items()]
        if self.total and self.done:
            parts.append(f"ETA {_duration(elapsed * (self.total - self.done) / self.done)}")
        return ", ".join(parts)


@contextmanager
def progress(label: str, unit: str, total: float | None) -> Iterator[Advance]:
    """Yield a function to report work with; everything is shown on stderr, so stdout stays for results."""
    if _muted:
        yield silent
        return
    rates = _Rates(unit, total)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task(label, total=total, rate="")

            def advance_bar(amount: float, **extra: float) -> None:
                rates.add(amount, extra)
                bar.update(task, advance=amount, rate=rates.text())

            yield advance_bar
        return

    last_line = time.monotonic()

    def advance_line(amount: float, **extra: float) -> None:
        nonlocal last_line
        rates.add(amount, extra)
        now = time.monotonic()
        if now - last_line >= _LINE_EVERY_SECONDS:
            last_line = now
            goal = f"/{rates.total:,.0f}" if rates.total else ""
            print(f"{label}: {rates.done:,.0f}{goal} {unit}, {rates.text()}", file=sys.stderr, flush=True)

    yield advance_line
    elapsed = time.monotonic() - rates.started
    if elapsed >= 1.0:
        print(f"{label}: {rates.done:,.0f} {unit} in {_duration(elapsed)}, {rates.text()}", file=sys.stderr, flush=True)
