"""Curves over images seen: loss.png, and the charts of the page as SVG that takes on the page's colours."""

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastddpm.files import written

Rows = Sequence[dict[str, Any]]
COLOURS = ("#3b82f6", "#f08c2e", "#2aa876", "#a371f7", "#e05577", "#2aa5b5", "#a08a2a", "#8a8f99")
QUARTERS = ("1st quarter of t (least noise)", "2nd", "3rd", "4th (most noise)")
_INK = "#010203"
"""stands for the page's text colour until the SVG is written"""


@dataclass(frozen=True)
class Curve:
    """One line of a chart: `values` at `places`; NaN: a gap."""

    name: str
    places: Sequence[float]
    values: Sequence[float]
    marked: bool = False
    half_widths: Sequence[float] = ()
    """half the interval around each value; none: no intervals"""


@dataclass(frozen=True)
class Chart:
    """Curves over one thing."""

    title: str
    curves: Sequence[Curve]
    logarithmic: bool = False
    over: str = "images seen"


def curve(rows: Rows, key: str, name: str, *, place: int | str | None = None, marked: bool = False) -> Curve:
    """The values of `key` in the rows that have it; null becomes a gap.

    Args:
        place: of the number in a value that is a list, or its name in one that has names.
    """
    found = [row for row in rows if row.get(key) is not None or (key in row and place is None)]
    numbers = [row[key] if place is None else row[key][place] for row in found]
    values = [np.nan if number is None else float(number) for number in numbers]
    return Curve(name, [row["images_seen"] for row in found], values, marked)


def charts_of(rows: Rows) -> list[Chart]:
    """The charts of a run, as far as its rows of metrics.jsonl hold their values."""
    charts = [
        loss_chart(rows),
        quartile_chart(rows),
        *averages_chart(rows),
        Chart("KID", [curve(rows, "kid", "KID", marked=True)]),
        Chart("images per second", [curve(rows, "images_per_second", "images per second")]),
        Chart("share of the device's peak", [curve(rows, "peak_share", "share of peak")]),
        Chart("share of time waiting for data", [curve(rows, "data_wait_share", "waiting")]),
        Chart("gradient norm", [curve(rows, "grad_norm", "gradient norm")], logarithmic=True),
        Chart("learning rate", [curve(rows, "learning_rate", "learning rate")]),
    ]
    drawable = [
        Chart(chart.title, [line for line in chart.curves if np.isfinite(line.values).any()], chart.logarithmic)
        for chart in charts
    ]
    return [chart for chart in drawable if chart.curves]


def loss_chart(rows: Rows) -> Chart:
    """The loss as it is trained, and that of the averaged weights on training and on held-out images."""
    lines = [
        curve(rows, "loss", "while training"),
        curve(rows, "train_set_loss", "training images (averaged weights)", marked=True),
        curve(rows, "held_out_loss", "held-out images (averaged weights)", marked=True),
    ]
    return Chart("loss", lines, logarithmic=True)


def averages_chart(rows: Rows) -> list[Chart]:
    """The held-out loss of each of several averaged weights; nothing of a single one."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("held_out_loss_of_others", ())))
    if not names:
        return []
    main = curve(rows, "held_out_loss", "the first average, of unet/", marked=True)
    found = [row for row in rows if "held_out_loss_of_others" in row]
    others = [curve(found, "held_out_loss_of_others", name, place=name, marked=True) for name in names]
    return [Chart("held-out loss of each average", [main, *others], logarithmic=True)]


def quartile_chart(rows: Rows) -> Chart:
    """The training loss of each quarter of the timesteps."""
    lines = [curve(rows, "loss_by_quartile", name, place=place) for place, name in enumerate(QUARTERS)]
    return Chart("loss by timestep quartile", lines, logarithmic=True)


def save_loss_plot(rows: Rows, path: Path) -> None:
    """Plot the losses over images seen, whole and by timestep quartile.

    Args:
        rows: of metrics.jsonl.
    """
    save_charts([loss_chart(rows), quartile_chart(rows)], path)


def save_charts(charts: Sequence[Chart], path: Path) -> None:
    """Draw charts into one picture, two beside each other, in one move."""
    from matplotlib.figure import Figure  # takes a moment, here and below: only when something is drawn

    lines = -(-len(charts) // 2)
    figure = Figure(figsize=(11, 4 * lines))
    edge = 0.6 / (4 * lines)  # inches of titles and labels; a layout engine draws everything twice
    figure.subplots_adjust(left=0.06, right=0.985, bottom=edge, top=1 - edge / 2, wspace=0.14, hspace=0.35)
    for axes, chart in itertools.zip_longest(figure.subplots(lines, 2, squeeze=False).flat, charts):
        if chart is None:
            axes.set_axis_off()
            continue
        _plot(axes, chart)
        axes.set(title=chart.title, xlabel=chart.over)
    with written(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def to_svg(chart: Chart) -> str:
    """An `<svg>` element whose text and frame have the colour of the text around it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    look: Any = dict.fromkeys(inked, _INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": chart.title,  # names inside of one drawing must not be those of another on the page
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(look):
        figure = Figure(figsize=(5.6, 3.2))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.985, bottom=0.15, top=0.97)  # a layout engine draws everything twice
        _plot(axes, chart)
        axes.set(xlabel=chart.over)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _plot(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter, LogFormatter

    class PlainNumbers(LogFormatter):
        """0.6 where matplotlib writes 6 x 10^-1; it decides which ticks have room for a number."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    for line, colour in zip(chart.curves, itertools.cycle(COLOURS), strict=False):
        if line.values:
            axes.plot(
                line.places,
                line.values,
                "o-" if line.marked else "-",
                color=colour,
                label=line.name,
                linewidth=1.3 if line.marked else 1,
                markersize=3,
            )
        if line.half_widths:
            axes.errorbar(
                line.places, line.values, line.half_widths, color=colour, linestyle="none", capsize=3, linewidth=1
            )
    positive = any(value > 0 for line in chart.curves for value in line.values)
    if chart.logarithmic and positive:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainNumbers())
        axes.yaxis.set_minor_formatter(PlainNumbers(minor_thresholds=(2, 0.5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25, which="both", linewidth=0.6)
    if len([line for line in chart.curves if line.values]) > 1:
        axes.legend(fontsize=8, framealpha=0, labelcolor="linecolor")
