from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_convention_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    folders = ("retrieval", "evaluation", "ablation", "tuning", "benchmarks")
    files = [file for folder in folders for file in (ROOT / "tests" / folder).glob("test_*.py")]
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    tables = re.findall(r"^\| convention \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) > 3 and len(rows) > 30
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"no test holds: {row}"
        assert set(named) <= there, f"no such test: {set(named) - there}"
