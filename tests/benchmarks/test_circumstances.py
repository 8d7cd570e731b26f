from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.circumstances import Circumstances

pytestmark = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")


def _others(line: str) -> float:
    found = re.search(r"other processes kept ([\d.]+) cores busy", line)
    assert found
    return float(found[1])


def test_the_benchmarks_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    circumstances = Circumstances(("numpy",))
    own_before, started = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    sum(range(20_000_000))
    with_own = _others(circumstances.line())
    # The same, had the process and its child not been left out.
    busy = sum(os.times()[:4]) - sum(own_before[:4])
    monkeypatch.setattr(os, "times", lambda: own_before)
    without_own = _others(circumstances.line())
    assert without_own - with_own > 0.5 * busy / (time.monotonic() - started)
