"""Plots as PNG bytes, readable with any colour vision: no two things differ by hue alone."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from crosslingual.data.text import printable
from crosslingual_benchmarks.report.measures import Number

DPI = 150
INK = "#222222"
PALE = "#666666"
# Okabe & Ito 2008, Color Universal Design, without the yellow that white paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPXp*h"
DASHES = ("--", ":", "-.", (0, (5, 1)))
COLOUR_MAP = "cividis"  # Nuñez et al. 2018: the same to people without red or green cones


@dataclass(frozen=True)
class Point:
    """An arm on the plot of quality against cost.

    Its cost is above 0; its style chooses colour and shape.
    """

    label: str
    cost: float
    quality: Number
    style: int = 0


def heat_map(
    rows: Mapping[str, Sequence[Number | None]],
    columns: Sequence[str],
    *,
    scale: float,
    label: str,
    column_inches: float = 0.42,
) -> bytes:
    """Arms by languages: a field a number, which stands in it; a dash where there is none.

    Numbers are multiplied by `scale`; the colours go from 0 to it.
    """
    size = max(5.0, 2.6 + column_inches * len(columns)), max(2.2, 0.8 + 0.34 * len(rows))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    values = [
        [float("nan") if number is None else number.value * scale for number in numbers]
        for numbers in rows.values()
    ]
    image = axes.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=scale, aspect="auto")
    axes.set_facecolor("#eeeeee")
    for y, numbers in enumerate(values):
        for x, value in enumerate(numbers):
            text = "–" if value != value else f"{value:.0f}"
            ink = "black" if value != value else ink_on(image.to_rgba(value))
            axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=ink)
    heads = [cut(column) for column in columns]
    axes.set_xticks(range(len(columns)), heads, fontsize=10, parse_math=False)
    axes.set_yticks(range(len(rows)), [cut(row) for row in rows], fontsize=10, parse_math=False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=12)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    return png(figure)


def quality_against_cost(
    points: Sequence[Point],
    lines: Mapping[str, Number],
    *,
    cost_label: str,
    quality_label: str,
    scale: float = 100,
) -> bytes:
    """A numbered point an arm, cost on a logarithmic axis, intervals as error bars, and the arms'
    names beside the plot, the best first.

    Horizontal `lines` have a quality and no cost, such as the upper bound.
    """
    figure = Figure(figsize=(8.4, 4.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    best_first = sorted(points, key=lambda point: -point.quality.value)
    for rank, point in enumerate(best_first, start=1):
        value = point.quality.value * scale
        bars = None
        if point.quality.low is not None and point.quality.high is not None:
            # a few resamplings may all lie on one side of the value
            ends = value - point.quality.low * scale, point.quality.high * scale - value
            bars = [[max(end, 0.0)] for end in ends]
        axes.errorbar(
            [point.cost],
            [value],
            yerr=bars,
            fmt=MARKERS[point.style % len(MARKERS)],
            color=COLOURS[point.style % len(COLOURS)],
            ecolor=PALE,
            markersize=8,
            capsize=3,
            elinewidth=1,
            label=f"{rank}  {cut(point.label)}",
        )
        axes.annotate(
            str(rank),
            (point.cost, value),
            (5, 5),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:,.0f}" if cost >= 10 else f"{cost:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    costs = [point.cost for point in points]
    axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    axes.set_ylim(*_limits([*(p.quality for p in points), *lines.values()], scale))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _draw_lines(axes, lines, scale)
    axes.set_xlabel(printable(cost_label), parse_math=False)
    axes.set_ylabel(quality_label, parse_math=False)
    names = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    for text in names.get_texts():
        text.set_parse_math(False)
    return png(figure)


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with a colour (WCAG 2.2, relative luminance)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "black" if luminance > 0.179 else "white"


def _draw_lines(axes: Any, lines: Mapping[str, Number], scale: float) -> None:
    """Draws a horizontal line for each, with its name and value at the right."""
    for place, (label, number) in enumerate(lines.items()):
        y = number.value * scale
        axes.axhline(y, color=PALE, linewidth=1.2, linestyle=DASHES[place % len(DASHES)])
        axes.annotate(
            f"{cut(label)}, {y:.1f}",
            (0.995, y),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=PALE,
            parse_math=False,
        )


def _limits(numbers: Sequence[Number], scale: float) -> tuple[float, float]:
    ends = [end * scale for n in numbers for end in (n.value, n.low, n.high) if end is not None]
    room = max(0.08 * (max(ends) - min(ends)), 1.0)
    return min(ends) - room, max(ends) + room


def cut(label: str, most: int = 36) -> str:
    """A label as it may stand in a plot: no hidden characters, and not too long."""
    label = printable(label)
    return label if len(label) <= most else label[: most - 1] + "…"


def png(figure: Figure) -> bytes:
    """The figure's file."""
    file = io.BytesIO()
    # no version of matplotlib inside: equal numbers give equal files
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
