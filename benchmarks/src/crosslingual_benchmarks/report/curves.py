"""Plots of an arm's quality over something that grows: a line an arm, named at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from crosslingual_benchmarks.report.measures import Number
from crosslingual_benchmarks.report.plots import COLOURS, DASHES, DPI, INK, MARKERS, PALE, cut, png

MOST_MARKS = 24  # of a line: with more they touch


@dataclass(frozen=True)
class Line:
    """An arm's quality at places that rise, such as seconds; its style chooses colour and shape."""

    label: str
    places: Sequence[float]
    qualities: Sequence[Number]
    style: int = 0


def quality_curves(
    lines: Sequence[Line],
    levels: Mapping[str, float],
    *,
    place_label: str,
    quality_label: str,
    scale: float = 100,
) -> bytes:
    """A line an arm with a band from its lowest to its highest seed, and its name at its end;
    horizontal lines for `levels`. A long line has a mark at some of its places.
    """
    figure = Figure(figsize=(8.6, 5.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        _draw_curve(axes, line, scale)
    _draw_levels(axes, levels, scale)
    axes.set_xlim(0, max(line.places[-1] for line in lines) * 1.02)
    axes.set_ylim(-3, max([scale, *(level * scale for level in levels.values())]) * 1.06)
    _plain_axes(axes, place_label)
    axes.set_ylabel(quality_label, parse_math=False)
    _label_ends(axes, lines, scale)
    return png(figure)


def curve_panels(
    panels: Mapping[str, Sequence[Line]],
    levels: Mapping[str, float],
    *,
    place_label: str,
    quality_label: str,
    scale: float = 100,
) -> bytes:
    """A panel a title, two in a row, with one scale and one legend and without bands; places are
    logarithmic.
    """
    num_rows = -(-len(panels) // 2)
    size = 9.6, 0.9 + 3.0 * num_rows
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(num_rows, 2, sharex=True, sharey=True, squeeze=False)
    shown = {}
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        axes.set_xscale("log")
        for line in lines:
            shown[line.label] = _draw_line(axes, line, scale)
        _draw_levels(axes, levels, scale)
        places = sorted({place for line in lines for place in line.places})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
        axes.tick_params(labelbottom=True)
        _plain_axes(axes, place_label)
        axes.set_title(cut(title, 60), fontsize=10, loc="left", parse_math=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(quality_label, parse_math=False)
    grid[0, 0].set_ylim(-3, scale * 1.06)
    names = [cut(name) for name in shown]
    figure.legend(shown.values(), names, loc="outside lower center", ncols=4, fontsize=9)
    return png(figure)


def _draw_curve(axes: Any, line: Line, scale: float) -> None:
    """Draws a line, and a band where all of its numbers have ends."""
    _draw_line(axes, line, scale)
    ends = [(n.low, n.high) for n in line.qualities if n.low is not None]
    if len(ends) == len(line.qualities):
        colour = COLOURS[line.style % len(COLOURS)]
        low, high = ([end * scale for end in each] for each in zip(*ends, strict=True))
        axes.fill_between(line.places, low, high, color=colour, alpha=0.13, linewidth=0)


def _draw_line(axes: Any, line: Line, scale: float) -> Any:
    (drawn,) = axes.plot(
        line.places,
        [number.value * scale for number in line.qualities],
        color=COLOURS[line.style % len(COLOURS)],
        marker=MARKERS[line.style % len(MARKERS)],
        markevery=1 + len(line.places) // MOST_MARKS,
        markersize=5,
        linewidth=1.6,
    )
    return drawn


def _draw_levels(axes: Any, levels: Mapping[str, float], scale: float) -> None:
    """Draws horizontal lines, each with its name at the left."""
    for place, (label, level) in enumerate(levels.items()):
        axes.axhline(level * scale, color=PALE, linewidth=1, linestyle=DASHES[place % len(DASHES)])
        axes.annotate(
            label,
            (0.005, level * scale),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8.5,
            color=PALE,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _plain_axes(axes: Any, place_label: str) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(place_label, parse_math=False)


def _label_ends(axes: Any, lines: Sequence[Line], scale: float) -> None:
    """Writes each line's mark and name at the right, in the order of the ends and clear of each
    other; of equal ends the line that was higher before stands higher.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * 0.048
    ends = sorted(lines, key=lambda line: [n.value for n in reversed(line.qualities)])
    places: list[float] = []
    for line in ends:
        y = line.qualities[-1].value * scale
        places.append(max(y, places[-1] + gap) if places else y)
    over = max(places[-1] - high, 0.0)  # pushed out at the top: the crowd moves down
    for place in reversed(range(len(places))):
        above = places[place + 1] - gap if place + 1 < len(places) else places[place] - over
        places[place] = min(places[place], above)
    for line, y in zip(ends, places, strict=True):
        colour = COLOURS[line.style % len(COLOURS)]
        axes.annotate(
            "",
            (line.places[-1], line.qualities[-1].value * scale),
            xytext=(1.03, y),
            textcoords=("axes fraction", "data"),
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkB": 3},
        )
        axes.plot(
            [1.03],
            [y],
            color=colour,
            marker=MARKERS[line.style % len(MARKERS)],
            markersize=5,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
        axes.text(
            1.045,
            y,
            cut(line.label),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=INK,
            parse_math=False,
        )
