from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cache.errors import ConfigError
from ragcun_cache.marked_yaml import read_settings, read_yaml


def test_every_key_and_entry_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# words\na: 1\nb:\n  c: [x, y]\n  d:\n    - e: 2\n    - f\ng: {h: 3, i: 4}\n")
    marked = read_yaml(path)
    assert marked.content == {"a": 1, "b": {"c": ["x", "y"], "d": [{"e": 2}, "f"]}, "g": {"h": 3, "i": 4}}
    assert marked.lines[("a",)] == 2
    assert marked.lines[("b", "c", 1)] == 4
    assert marked.lines[("b", "d", 0, "e")] == 6
    assert marked.lines[("b", "d", 1)] == 7
    assert marked.where(("g", "i")) == f"{path}, line 8"
    assert marked.where(("g", "unheard", "of")) == f"{path}, line 8"
    assert marked.where(("unheard",)) == str(path)


def test_a_number_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: [1e-4, 2.5E3, -1e2, .5e1, 1_000, 0-2, 1e, e1]\n")
    assert read_yaml(path).content["a"] == [1e-4, 2500.0, -100.0, 5.0, 1000, "0-2", "1e", "e1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1,\n  c: 2}\n", r"c is set twice(.|\n)*lines 2 and 3"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("a: !!python/object:os.system 1\n", "cannot be read as YAML"),
        ("a: 2024-02-30\n", r"cannot be read as YAML(.|\n)*day"),
        ("words\n", "holds settings"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_settings_are_what_they_are_in_a_file() -> None:
    given = ["a=1e-4", "b = null", "c=[1, x]", "d=nan", "e=infinity", "f='0.5'", "g=x=y", "h="]
    found = {"a": 1e-4, "b": None, "c": [1, "x"], "d": "nan", "e": "infinity", "f": "0.5", "g": "x=y", "h": None}
    assert read_settings(given) == found
    assert read_settings(None) == {}


@pytest.mark.parametrize("given", ["words", "a=[1", "a=2024-02-30"])
def test_a_setting_that_cannot_be_read_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"a setting cannot be read(.|\n)*--set name=value"):
        read_settings([given])
