"""The report's plots: matplotlib without pyplot, a function a plot, in a light or a dark dress.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), told apart by the
colour-blind; lines differ in their dashes too.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cifar_ray.errors import printable
from cifar_ray.training.evaluation.curves import Confusion, Roc
from cifar_ray.training.evaluation.metrics import ECE_BINS, Reliability

DPI = 200
WIDTH = 4.8
"""Inches: text of 9 points is then read on a phone, too."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of the page that a plot stands in."""

    card: str
    ink: str
    soft: str
    line: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1a1d21",
    "#5b6470",
    "#dfe3e8",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#000000"),
)
DARK = Theme(
    "#1d2126",
    "#e8eaed",
    "#a0a9b4",
    "#333a42",
    ("#56b4e9", "#f08a4b", "#2fc79a", "#e0a0c4", "#f0e442", "#ffffff"),
)

Draw = Callable[[Theme], Figure]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs and values."""


def to_png(draw: Draw, theme: Theme) -> bytes:
    """Draw in a theme and return the file."""
    with (
        mpl.rc_context({"font.size": 9, "font.family": "DejaVu Sans", "text.parse_math": False}),
        warnings.catch_warnings(),
    ):
        # A script that matplotlib's own font lacks is drawn as boxes; the page's text has it.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = draw(theme)
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor=theme.card)
    return buffer.getvalue()


def roc(theme: Theme, curves: dict[str, Roc], background: Sequence[Roc] = ()) -> Figure:
    """Named curves over unnamed thin ones, with the corner that matters enlarged."""
    figure, axes = _square(theme)
    inset = axes.inset_axes((0.42, 0.22, 0.55, 0.55))
    for place in (axes, inset):
        for curve in background:
            place.plot(
                curve.false_positive_rate, curve.true_positive_rate, color=theme.line, lw=0.9
            )
        for number, (name, curve) in enumerate(curves.items()):
            place.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                label=_short(name, 34),
                lw=1.8,
                **_style(theme, number),
            )
    axes.plot((0, 1), (0, 1), color=theme.soft, lw=0.8, ls=":")
    _dress(inset, theme)
    inset.set(xlim=(-0.005, 0.2), ylim=(0.8, 1.005))
    inset.tick_params(labelsize=7)
    axes.indicate_inset_zoom(inset, edgecolor=theme.soft, alpha=0.7)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    _legend(figure, axes, theme)
    return figure


def reliability_diagram(theme: Theme, curves: dict[str, Reliability]) -> Figure:
    """Accuracy by confidence above, how many images have which confidence below."""
    figure = Figure((WIDTH, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    upper.plot((0, 1), (0, 1), color=theme.soft, lw=0.9, ls=":")
    edges = np.linspace(0, 1, ECE_BINS + 1)
    for number, (name, curve) in enumerate(curves.items()):
        some = curve.count > 0
        style = _style(theme, number)
        confidence = curve.confidence_sum[some] / curve.count[some]
        accuracy = curve.correct[some] / curve.count[some]
        upper.plot(
            confidence,
            accuracy,
            lw=1.2,
            label=_short(f"{name}, ECE {curve.error:.2%}", 44),
            **style,
        )
        # A bin of few images says little: its mark is small.
        sizes = 6 + 70 * np.sqrt(curve.count[some] / curve.count.sum())
        upper.scatter(
            confidence, accuracy, sizes, color=style["color"], marker="os^Dv"[number % 5], zorder=3
        )
        lower.stairs(
            100 * curve.count / curve.count.sum(), edges, color=style["color"], ls=style["ls"]
        )
    for axes in (upper, lower):
        _dress(axes, theme)
    upper.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="share that is right")
    lower.set(xlabel="confidence of the first choice", ylabel="images, %")
    lower.set_ylim(bottom=0)
    _legend(figure, upper, theme)
    return figure


def training_curves(theme: Theme, curves: dict[str, Curve], ylabel: str) -> Figure:
    """Named (epochs, values) curves."""
    figure = Figure((WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        axes.plot(
            epochs,
            values,
            label=_short(name, 40),
            marker="o" if len(epochs) < 25 else None,
            ms=3,
            lw=1.6,
            **_style(theme, number),
        )
    _dress(axes, theme)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes, theme)
    return figure


def confusion_grid(theme: Theme, matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """A cell a pair of classes; the shade is the share of the true class, its root for contrast."""
    figure = Figure((WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    shares = np.sqrt(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
    shades = LinearSegmentedColormap.from_list("", (theme.card, theme.series[0]))
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
    size = 8 if len(names) <= 12 else 5.5
    for i, j in np.ndindex(matrix.shape):
        if matrix[i, j]:
            colour = theme.card if shares[i, j] > 0.6 else theme.ink
            axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", color=colour, size=size)
    short = [_short(name, 14) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), short)
    _dress(axes, theme, grid=False)
    axes.tick_params(length=0, labelsize=size + 0.5)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def confusion_bars(theme: Theme, confusions: Sequence[Confusion], names: Sequence[str]) -> Figure:
    """The most frequent mistakes, where the grid would have too many cells to be read."""
    figure = Figure((WIDTH, 0.8 + 0.27 * len(confusions)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(confusions))
    axes.barh(rows, [item.number for item in confusions], color=theme.series[0], height=0.7)
    axes.set_yticks(
        rows,
        [f"{_short(names[c.label], 18)} → {_short(names[c.predicted], 18)}" for c in confusions],
    )
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(axes, theme)
    axes.set(xlabel="images")
    return figure


def class_points(
    theme: Theme, classes: Sequence[str], models: Mapping[str, Sequence[float]]
) -> Figure:
    """A row a class, a point a model."""
    figure = Figure((WIDTH, 1.2 + 0.27 * len(classes)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(classes))
    axes.hlines(rows, *_span(models), color=theme.line, lw=3)
    for number, (name, values) in enumerate(models.items()):
        colour = _style(theme, number)["color"]
        axes.plot(values, rows, "os^Dv"[number % 5], color=colour, ms=5.5, label=_short(name, 40))
    axes.set_yticks(rows, [_short(name, 24) for name in classes])
    axes.invert_yaxis()
    _dress(axes, theme)
    axes.set(xlabel="F1")
    _legend(figure, axes, theme)
    return figure


def picture_grid(
    theme: Theme, cells: Sequence[tuple[NDArray[np.uint8], str]], columns: int
) -> Figure:
    """Pictures with a caption of one or two lines each, row by row."""
    num_rows = -(-len(cells) // columns)
    # Placed by hand: a layout engine takes seconds for so many axes.
    width, height = 1.25, 1.6
    figure = Figure((width * columns, height * num_rows))
    for at, (pixels, caption) in enumerate(cells):
        row, column = divmod(at, columns)
        left, bottom = (column + 0.04) / columns, (num_rows - row - 0.98) / num_rows
        axes = figure.add_axes((left, bottom, 0.92 / columns, 0.92 * width / height / num_rows))
        axes.set_axis_off()
        axes.imshow(pixels, interpolation="nearest")
        lines = [_short(line, 20) for line in caption.split("\n")]
        axes.set_title("\n".join(lines), size=7, color=theme.ink, pad=3)
    return figure


def _square(theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, 5.0), layout="constrained")
    axes: Axes = figure.subplots()
    _dress(axes, theme)
    return figure, axes


def _style(theme: Theme, number: int) -> dict[str, Any]:
    return {
        "color": theme.series[number % len(theme.series)],
        "ls": DASHES[number % len(DASHES)],
    }


def _dress(axes: Axes, theme: Theme, grid: bool = True) -> None:
    axes.set_facecolor(theme.card)
    for name, spine in axes.spines.items():
        spine.set_color(theme.line)
        spine.set_visible(name in ("left", "bottom") or not grid)
    axes.tick_params(colors=theme.soft, labelcolor=theme.ink)
    axes.xaxis.label.set_color(theme.soft)
    axes.yaxis.label.set_color(theme.soft)
    if grid:
        axes.grid(color=theme.line, lw=0.6)
        axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Above the plot, a line an entry, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        frameon=False,
        labelcolor=theme.ink,
        handlelength=2.6,
    )


def _span(models: Mapping[str, Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.array(list(models.values()), dtype=np.float64)
    return np.nanmin(values, axis=0), np.nanmax(values, axis=0)


def _short(text: str, limit: int) -> str:
    """Other people's text on one line, without what steers a terminal or a layout."""
    text = printable(text)
    if text.startswith("_"):  # which would hide it from matplotlib's legends
        text = f" {text}"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
