"""A sweep as people see it: a table that lives while runs go on, on a terminal; a line for each run elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ragcun_cache.ablation.sweep import SweepRun
from ragcun_cache.ablation.workers import Event
from ragcun_cache.training.diagnostics import DEV_METRIC

if TYPE_CHECKING:
    from rich.table import Table

Watch = Callable[[SweepRun, Event], None]

_ENDED_SHOWN = 12
_COLUMNS = ("state", "run", "epoch", "loss", "dev NDCG@10", "seconds")


@contextmanager
def watching(total: int) -> Iterator[Watch]:
    """Yield a function to tell of every event; all is shown on stderr, so stdout stays for results."""
    seen = _Seen(total)
    if not sys.stderr.isatty():

        def tell_line(run: SweepRun, event: Event) -> None:
            seen.tell(run, event)
            if event.kind in ("done", "failed"):
                print(seen.line(run), file=sys.stderr, flush=True)

        yield tell_line
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), get_renderable=seen.table, refresh_per_second=4, transient=True):
        yield seen.tell


class _Seen:
    """The latest event of every run that was heard of."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._events: dict[int, tuple[SweepRun, Event, float]] = {}

    def tell(self, run: SweepRun, event: Event) -> None:
        now = time.monotonic()
        _, before, started = self._events.pop(id(run), (run, event, now))
        # What ended is shown with the figures of its last epoch.
        known = event if event.row is not None else Event(**{**vars(event), "row": before.row})
        self._events[id(run)] = (run, known, started)

    def line(self, run: SweepRun) -> str:
        _, event, _ = self._events[id(run)]
        ended = sum(known.kind in ("done", "failed") for _, known, _ in self._events.values())
        epoch, loss, dev = _figures(event)
        if event.kind == "failed":
            told = f"failed: {(event.error or '').splitlines()[0]}"
        else:
            told = f"epoch {epoch}, loss {loss or '–'}, dev NDCG@10 {dev or '–'}"
        return f"{ended}/{self._total} {run.planned.label}: {told}, {event.seconds:.1f} s"

    def table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        known = list(self._events.values())  # at one blow: another thread draws than the one that hears
        states = [event.kind for _, event, _ in known]
        caption = f"{states.count('done')} done, {states.count('failed')} failed, of {self._total}"
        table = Table(caption=caption, caption_justify="left")
        for title in _COLUMNS:
            table.add_column(title, justify="left" if title in ("state", "run") else "right", no_wrap=title != "run")
        now = time.monotonic()
        ended = [one for one in known if one[1].kind in ("done", "failed")]
        going = [one for one in known if one[1].kind not in ("done", "failed")]
        for run, event, started in [*ended[-_ENDED_SHOWN:], *going]:
            state = event.kind if event.kind in ("done", "failed") else "running"
            seconds = now - started if state == "running" else event.seconds
            style = {"failed": "red", "running": "bold"}.get(state, "")
            texts = (state, run.planned.label, *_figures(event), f"{seconds:.0f}")
            table.add_row(*(Text(text) for text in texts), style=style)
        return table


def _figures(event: Event) -> tuple[str, str, str]:
    """Return epoch, loss and dev NDCG@10 as text, empty where they are not known."""
    row = event.row or {}
    values = [(row.get("epoch"), "{}"), (row.get("loss"), "{:.4g}"), (row.get(DEV_METRIC), "{:.4f}")]
    epoch, loss, dev = ("" if value is None else form.format(value) for value, form in values)
    return epoch, loss, dev
