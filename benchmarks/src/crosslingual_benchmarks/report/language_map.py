"""A map of many languages by arms: languages down, in blocks, in two columns that fit a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from crosslingual_benchmarks.report.measures import Number
from crosslingual_benchmarks.report.plots import COLOUR_MAP, DPI, INK, cut, ink_on, png

Row = tuple[str, Sequence[Number | None] | None]
"""A language's label and its numbers; or a block's head, and None."""

WIDTH, ROW, HEADS = 9.6, 0.165, 1.75  # inches: the figure, a row, and the arms' names above
TEXT = 7.2
SHADES = 0.1  # of the scale: the lightest colour is the largest number, rounded up to this


def language_map(
    blocks: Mapping[str, Mapping[str, Sequence[Number | None]]],
    columns: Sequence[str],
    *,
    scale: float,
    label: str,
) -> bytes:
    """A square a number, which stands in it; a dash where there is none.

    Args:
        blocks: names of groups of languages to the languages' labels and numbers, one a column.
        columns: names of the arms.
        scale: factor of the numbers.
        label: what they are.
    """
    halves = in_two(rows_of(blocks))
    numbers = [n.value for _, row in halves[0] + halves[1] for n in row or () if n is not None]
    top = scale * SHADES * max(1, -int(-max(numbers, default=0.0) // SHADES))
    figure = Figure(figsize=(WIDTH, HEADS + ROW * len(halves[0])), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2 if halves[1] else 1, squeeze=False)[0]
    for axes, rows in zip(panels, halves, strict=False):
        image = _draw(axes, rows, columns, len(halves[0]), scale, top)
    bar = figure.colorbar(image, ax=list(panels), location="bottom", pad=0.01, aspect=60)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return png(figure)


def rows_of(blocks: Mapping[str, Mapping[str, Sequence[Number | None]]]) -> list[Row]:
    """The blocks one below the other, each under its head."""
    return [
        row
        for name, languages in blocks.items()
        for row in ((f"{name} ({len(languages)})", None), *languages.items())
    ]


def in_two(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Two columns of about equal length; a block that is cut has its head in both, and none ends
    with a head.
    """
    middle = (len(rows) + 1) // 2
    while middle > 1 and rows[middle - 1][1] is None:
        middle -= 1
    left, right = rows[:middle], rows[middle:]
    if right and right[0][1] is not None:
        head = next(name for name, numbers in reversed(left) if numbers is None)
        right = [(f"{head} …", None), *right]
    return left, right


def _draw(
    axes: Any, rows: list[Row], columns: Sequence[str], num_rows: int, scale: float, top: float
) -> Any:
    """Draws a column of the page; both have as many rows, so that their squares are alike."""
    nan = float("nan")
    values = [
        [nan if n is None else n.value * scale for n in numbers or [None] * len(columns)]
        for _, numbers in rows
    ]
    values += [[nan] * len(columns)] * (num_rows - len(rows))
    image = axes.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=top, aspect="auto")
    for y, (name, numbers) in enumerate(rows):
        if numbers is None:
            axes.text(-0.5, y, name, va="center", fontsize=TEXT + 0.8, weight="bold", color=INK)
            continue
        for x, value in enumerate(values[y]):
            text = "–" if value != value else f"{value:.0f}"
            ink = INK if value != value else ink_on(image.to_rgba(value))
            axes.text(x, y, text, ha="center", va="center", fontsize=TEXT, color=ink)
    heads = [cut(column, 30) for column in columns]
    slanted = {"rotation": 55, "ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), heads, fontsize=TEXT + 0.8, parse_math=False, **slanted)
    names = ["" if numbers is None else cut(name) for name, numbers in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=TEXT + 0.3, parse_math=False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=2)
    axes.spines[:].set_visible(False)
    return image
