from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from reproduction.figures import Curve, Strip, draw_curves, draw_strips

TITLES = {"a": "Collection A", "mean": "mean"}
STRIPS = [
    Strip("a row", False, {"a": 0.6, "mean": 0.5}, {"as ran": {"a": np.array([0.6, 0.61]), "mean": np.array([0.5])}}),
    Strip("not run", False, {"mean": 0.5}, {"as ran": {}, "as written": {}}),
    Strip("it fails", True, {"a": 0.1, "mean": 0.1}, {"as written": {"a": np.array([0.1]), "mean": np.empty(0)}}),
]
CURVES = [
    Curve(
        f"head {n}", {1: np.array([0.4, 0.5]), 2: np.array([0.4])}, {2: 0.45}, {}, {0: np.ones(2), 2: np.array([0.1])}
    )
    for n in range(6)
]


def comments(path: Path) -> str:
    """Every text is drawn as outlines, with the text itself in a comment."""
    ET.fromstring(path.read_text())
    return path.read_text()


def test_strips_have_the_same_bytes_each_time_and_name_every_row(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw_strips(STRIPS, TITLES, {"a": 0.65, "mean": 0.5}, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    drawn = comments(tmp_path / "one.svg")
    for words in ("a row", "not run", "it fails", "Collection A", "published", "raw encoder", "our seeds, as written"):
        assert f"<!-- {words} -->" in drawn
    assert "<dc:date>" not in drawn


def test_curves_of_six_kinds_where_some_figures_are_absent(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw_curves(CURVES, None, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    drawn = comments(tmp_path / "one.svg")
    assert all(f"<!-- head {n} -->" in drawn for n in range(6))
    assert "<!-- raw encoder -->" not in drawn


def test_the_style_of_the_user_has_no_part_in_it(tmp_path: Path) -> None:
    import matplotlib as mpl

    draw_strips(STRIPS, TITLES, {}, tmp_path / "one.svg")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        draw_strips(STRIPS, TITLES, {}, tmp_path / "two.svg")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
