"""When, where and with what a benchmark was run, and how much else the machine had to do."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ragcun_cache.provenance import library_versions, machine, source_commit

_STAT = Path("/proc/stat")


class Circumstances:
    """Taken before a benchmark, told after it."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._date = datetime.now(UTC)
        self._load = os.getloadavg()[0]
        self._started = time.monotonic()
        self._others = _others_seconds()

    def line(self) -> str:
        """Return date, machine, what else it did, versions and commit, as one line."""
        where = machine()
        versions = [f"python {library_versions()['python']}", *(f"{name} {version(name)}" for name in self._packages)]
        commit, changes, _ = (source_commit() or "unknown").partition("+changes")
        return (
            f"{self._date:%Y-%m-%d %H:%M} UTC; {where['cpu']}, {where['cores']} cores, {where['system']} "
            f"{where['architecture']}; load average {self._load:.2f} before the start{self._meanwhile()}; "
            f"{', '.join(versions)}; commit {commit[:12]}{' with local changes' if changes else ''}."
        )

    def _meanwhile(self) -> str:
        """The load average counts what the benchmark itself did; this does not."""
        others = _others_seconds()
        if self._others is None or others is None:
            return ""
        cores = max(others - self._others, 0.0) / (time.monotonic() - self._started)
        return f", other processes kept {cores:.2f} cores busy meanwhile"


def _others_seconds() -> float | None:
    """Return the processor seconds that all but this process and its finished children took; None if unknown."""
    if not _STAT.exists():
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal: all but the two kinds of waiting.
    ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    own = os.times()
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return busy - (own.user + own.system + own.children_user + own.children_system)
