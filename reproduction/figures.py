"""The figures of the page, as SVG that has the same bytes whenever it is drawn from the same results."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.files import write_text
from reproduction.verdict import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; shapes differ too.
_BLUE, _ORANGE, _VERMILION, _GREY, _BLACK = "#0072B2", "#E69F00", "#D55E00", "#767676", "#222222"
_HOW = {"as ran": (_BLUE, "o"), "as written": (_ORANGE, "s")}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.edgecolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "xtick.color": _BLACK,
    "ytick.color": _BLACK,
    "legend.frameon": False,
    # White by itself, so that it can be read on a dark page too.
    "savefig.facecolor": "white",
    "svg.hashsalt": "ragcun-cache",
    "svg.fonttype": "path",
}
_ROW_INCHES, _PANEL_INCHES = 0.42, 3.3
_CURVES_A_LINE = 4


@dataclass(frozen=True)
class Strip:
    """One published row: its figure by collection, and (s,) figures of our seeds by how they were run."""

    label: str
    fails: bool
    published: Mapping[str, float]
    ours: Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Curve:
    """One kind of head over its epochs.

    ``test``: (s,) means of the test collections by epoch, of runs that ended there; ``published``: the same, published;
    ``dev`` and ``std_ratio``: (s,) figures by epoch of the longest runs.
    """

    title: str
    test: Mapping[int, NDArray[np.float64]]
    published: Mapping[int, float]
    dev: Mapping[int, NDArray[np.float64]]
    std_ratio: Mapping[int, NDArray[np.float64]]


def draw_strips(strips: Sequence[Strip], titles: Mapping[str, str], raw: Mapping[str, float], path: Path) -> None:
    """Draw every row's seeds as dots, the published figure as a diamond and the raw encoder as a line.

    Rows that fail have an axis of their own below the others: their figures are far off.
    """
    blocks = [block for fails in (False, True) if (block := [one for one in strips if one.fails == fails])]
    from matplotlib.figure import Figure

    with _styled():
        rows = [len(block) for block in blocks]
        figure = Figure(
            figsize=(2.9 + _PANEL_INCHES * len(titles), 1.4 + _ROW_INCHES * sum(rows) + 0.6 * len(rows)),
            layout="constrained",
        )
        grid: Any = figure.subplots(len(blocks), len(titles), squeeze=False, height_ratios=[n + 1 for n in rows])
        for block, line in zip(blocks, grid, strict=True):
            for number, (collection, axes) in enumerate(zip(titles, line, strict=True)):
                _strip_panel(axes, block, collection, raw.get(collection), named=number == 0)
        for title, axes in zip(titles.values(), grid[0], strict=True):
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel("NDCG@10")
        _legend(figure, raw=bool(raw))
        _save(figure, path)


def _strip_panel(axes: Axes, block: Sequence[Strip], collection: str, raw: float | None, *, named: bool) -> None:
    if raw is not None:
        axes.axvline(raw, color=_BLACK, linewidth=1.2, zorder=1)
    for place, strip in enumerate(block):
        axes.axhline(place, color="#E4E4E4", linewidth=0.8, zorder=0)
        for how, figures in strip.ours.items():
            colour, shape = _HOW[how]
            x_s = figures.get(collection, np.empty(0))
            # One above the other in the order of the seeds, so that equal figures are told apart.
            centre = place if len(strip.ours) == 1 else place + (-0.17 if how == "as ran" else 0.17)
            y_s = centre + (np.linspace(-0.1, 0.1, len(x_s)) if len(x_s) > 1 else np.zeros(len(x_s)))
            axes.scatter(x_s, y_s, s=20, color=colour, marker=shape, alpha=0.7, linewidths=0, zorder=2)
        if collection in strip.published:
            axes.scatter(
                [strip.published[collection]], [place], s=58, marker="D", facecolor="none", edgecolor=_VERMILION,
                linewidths=1.8, zorder=3,
            )  # fmt: skip
    axes.set_ylim(len(block) - 0.45, -0.55)
    axes.set_yticks(range(len(block)), [strip.label for strip in block] if named else [""] * len(block))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)


def draw_curves(curves: Sequence[Curve], raw: float | None, path: Path) -> None:
    """Draw NDCG@10 on the test sets and on dev, and the scale of the outputs, over the epochs.

    Every kind of head has three panels, one above the other.
    """
    from matplotlib.figure import Figure

    with _styled():
        lines = ceil(len(curves) / _CURVES_A_LINE)
        across = ceil(len(curves) / lines)
        figure = Figure(figsize=(1.2 + 2.6 * across, 0.6 + 5.2 * lines), layout="constrained")
        grid: Any = figure.subplots(3 * lines, across, squeeze=False, sharey=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for number, curve in enumerate(curves):
            line, column = divmod(number, across)
            panels = grid[3 * line : 3 * line + 3, column]
            _curve_panels(panels, curve, raw, named=column == 0)
        _share_limits(grid)
        _legend(figure, raw=raw is not None, hows=())
        _save(figure, path)


def _curve_panels(panels: Any, curve: Curve, raw: float | None, *, named: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    test, dev, scale = panels
    epochs = sorted({*curve.test, *curve.published, *curve.dev, *curve.std_ratio})
    for axes, title, figures in (
        (test, "NDCG@10, test", curve.test),
        (dev, "NDCG@10, dev", curve.dev),
        (scale, "output sd ÷ at start", curve.std_ratio),
    ):
        axes.set_visible(True)
        _line_with_spread(axes, figures)
        axes.set_xticks(epochs, [str(epoch) for epoch in epochs] if axes is scale else [""] * len(epochs))
        axes.set_xlim(min(epochs) - 0.3, max(epochs) + 0.3)
        axes.grid(axis="y")
        if named:
            axes.set_ylabel(title)
    if raw is not None:
        test.axhline(raw, color=_BLACK, linewidth=1.2)
    test.scatter(
        list(curve.published), list(curve.published.values()), s=58, marker="D", facecolor="white",
        edgecolor=_VERMILION, linewidths=1.8, zorder=3,
    )  # fmt: skip
    scale.set_yscale("log")
    scale.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    scale.yaxis.set_major_formatter("{x:g}")
    scale.yaxis.set_minor_locator(NullLocator())
    scale.axhline(1.0, color=_GREY, linewidth=0.8, linestyle=":")
    scale.set_xlabel("epoch")
    test.set_title(curve.title, fontsize=10)


def _line_with_spread(axes: Axes, figures: Mapping[int, NDArray[np.float64]]) -> None:
    known = {epoch: spread(values) for epoch, values in sorted(figures.items()) if len(values)}
    mean = [found.mean or 0.0 for found in known.values()]
    sd = [found.sd or 0.0 for found in known.values()]
    axes.errorbar(list(known), mean, yerr=sd, color=_BLUE, marker="o", markersize=4.5, linewidth=1.4, capsize=3)


def _share_limits(grid: Any) -> None:
    """Give all panels that show the same the same limits, with numbers at the left only."""
    for kind in range(3):
        shown = [axes for axes in grid[kind::3].flat if axes.get_visible()]
        low = min(axes.get_ylim()[0] for axes in shown)
        high = max(axes.get_ylim()[1] for axes in shown)
        for axes in shown:
            axes.set_ylim(low, high)
            axes.tick_params(axis="y", which="both", labelleft=axes in grid[:, 0])


def _legend(figure: Figure, *, raw: bool, hows: Sequence[str] = tuple(_HOW)) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=_HOW[how][0], marker=_HOW[how][1], linestyle="", label=f"our seeds, {how}") for how in hows
    ] or [Line2D([], [], color=_BLUE, marker="o", label="our seeds, mean ± sd")]
    entries.append(
        Line2D(
            [], [], color=_VERMILION, marker="D", markerfacecolor="white", markeredgewidth=1.8, linestyle="",
            label="published",
        )
    )  # fmt: skip
    if raw:
        entries.append(Line2D([], [], color=_BLACK, linewidth=1.2, label="raw encoder"))
    figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own style is
        mpl.rcParams.update(_STYLE)
        yield


def _save(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    # Matplotlib leaves blanks at line ends, which version control complains of.
    lines = (line.rstrip() for line in drawn.getvalue().decode().splitlines())
    write_text(path, "\n".join(lines) + "\n")
