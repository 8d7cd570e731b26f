"""When, where and with what a benchmark was run."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version

from ragcun_cache.provenance import library_versions, machine, source_commit


def circumstances(packages: tuple[str, ...]) -> str:
    """Return a line with date, machine, load, versions and commit, as they are now: call it before measuring."""
    where = machine()
    versions = [f"python {library_versions()['python']}", *(f"{package} {version(package)}" for package in packages)]
    commit, changes, _ = (source_commit() or "unknown").partition("+changes")
    busy = f"load average {os.getloadavg()[0]:.2f} before the start" if hasattr(os, "getloadavg") else "load unknown"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {where['cpu']}, {where['cores']} cores, {where['system']} "
        f"{where['architecture']}; {busy}; {', '.join(versions)}; "
        f"commit {commit[:12]}{' with local changes' if changes else ''}."
    )
