"""A contact sheet: pictures in rows and columns, each above its prompt in the prompt's own script.

rows = [[Cell(picture, "ein großer roter Stern", "de", mark=True), ...], ...]
contact_sheet(rows, column_heads=["as-is", "with PEA"], row_heads=["de", ...]).save("grid.png")
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from crosslingual_worlds.drawn.line_breaks import wrap
from crosslingual_worlds.drawn.typesetting import Line, draw_line, is_right_to_left

PAGE = (255, 255, 255)
HEAD_INK = (38, 38, 38)
TEXT_INK = (92, 92, 92)
HAIRLINE = (224, 224, 224)
RIGHT = (44, 154, 106)
WRONG = (214, 76, 60)

# Lengths are fractions of a picture's width, so that a sheet of another size looks the same.
TYPE_SIZE = 0.094
LINE_HEIGHT = 1.5  # in ems: room for Thai's and Vietnamese's stacked marks
ASCENT = 1.08  # from a line's top to its baseline, in ems
MARGIN = 0.3
COLUMN_GAP = 0.19
ROW_GAP = 0.26
CAPTION_GAP = 0.07
MAX_ROW_HEAD = 0.9


@dataclass(frozen=True)
class Cell:
    """A picture and its prompt.

    Attributes:
        picture: a square picture.
        text: the prompt, in any of the eighteen languages' scripts.
        language: the prompt's BCP-47 code.
        mark: True draws a green frame (correct), False a red one (wrong), None a grey hairline.
    """

    picture: Image.Image
    text: str
    language: str
    mark: bool | None = None


def _draw_lines(
    canvas: Image.Image,
    lines: list[Line],
    x: float,
    top: float,
    size: float,
    ink: tuple[int, int, int],
    flush_right: bool = False,
) -> None:
    """Draws lines from `top` downwards; they begin at `x`, or end there if `flush_right`."""
    for number, line in enumerate(lines):
        left = x - line.width * size if flush_right else x
        baseline = round(top + size * (ASCENT + number * LINE_HEIGHT))
        draw_line(canvas, line, left, baseline, size, ink)


def _draw_picture(
    canvas: Image.Image, picture: Image.Image, mark: bool | None, x: int, y: int
) -> None:
    """Draws a picture and its frame."""
    canvas.paste(picture, (x, y))
    unit = max(1, picture.width // 128)
    width = unit if mark is None else 2 * unit
    color = {None: HAIRLINE, True: RIGHT, False: WRONG}[mark]
    right, bottom = x + picture.width + width - 1, y + picture.height + width - 1
    ImageDraw.Draw(canvas).rectangle((x - width, y - width, right, bottom), None, color, width)


def contact_sheet(
    cells: Sequence[Sequence[Cell]],
    column_heads: Sequence[str] = (),
    row_heads: Sequence[str] = (),
    *,
    row_languages: Sequence[str] = (),
    picture_size: int = 128,
    type_size: float = TYPE_SIZE,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Draws a grid of pictures with their prompts; a row is as high as its longest prompt.

    Args:
        cells: the rows, of equal length.
        column_heads: one per column, or none at all.
        row_heads: one per row, or none at all.
        row_languages: BCP-47 codes of the row heads; English if not given.
        picture_size: the edge of every picture on the sheet, in pixels; type and white space scale
            with it.
        type_size: of the letters, as a fraction of a picture's width.
        resample: filter that resizes pictures.

    Returns:
        An RGB picture.

    Raises:
        ValueError: rows differ in length, or heads do not fit the grid.
    """
    num_columns = len(cells[0]) if cells else 0
    if not num_columns or any(len(row) != num_columns for row in cells):
        lengths = [len(row) for row in cells]
        raise ValueError(f"a contact sheet takes rows of equal length, not of {lengths} cells")
    if len(column_heads) not in (0, num_columns) or len(row_heads) not in (0, len(cells)):
        heads = f"{len(column_heads)} column heads and {len(row_heads)} row heads"
        raise ValueError(f"{heads} do not fit {len(cells)} x {num_columns} cells")
    edge, size = picture_size, type_size * picture_size
    margin, caption_gap = round(MARGIN * edge), round(CAPTION_GAP * edge)
    columns = [wrap(text, "en", edge / size) for text in column_heads]
    spoken = row_languages or ["en"] * len(row_heads)
    widest = MAX_ROW_HEAD * edge / size
    labels = [wrap(*head, widest) for head in zip(row_heads, spoken, strict=True)]
    captions = [[wrap(cell.text, cell.language, edge / size) for cell in row] for row in cells]

    def height(blocks: list[list[Line]]) -> int:
        return round(max(map(len, blocks), default=0) * LINE_HEIGHT * size)

    label_width = max((line.width * size for label in labels for line in label), default=0.0)
    column_gap, row_gap = round(COLUMN_GAP * edge), round(ROW_GAP * edge)
    left = margin + (round(label_width) + column_gap if labels else 0)
    xs = [left + number * (edge + column_gap) for number in range(num_columns)]
    top = margin + (height(columns) + caption_gap if columns else 0)
    steps = [edge + caption_gap + height(row) + row_gap for row in captions]
    *ys, bottom = itertools.accumulate(steps, initial=top)
    canvas = Image.new("RGB", (xs[-1] + edge + margin, bottom - row_gap + margin), PAGE)

    for x, lines in zip(xs, columns, strict=False):
        _draw_lines(canvas, lines, x, top - caption_gap - height([lines]), size, HEAD_INK)
    for y, label in zip(ys, labels, strict=False):
        _draw_lines(canvas, label, margin, y + (edge - height([label])) / 2, size, HEAD_INK)
    for y, row, texts in zip(ys, cells, captions, strict=True):
        for x, cell, lines in zip(xs, row, texts, strict=True):
            picture = cell.picture.convert("RGB").resize((edge, edge), resample)
            _draw_picture(canvas, picture, cell.mark, x, y)
            at_right = is_right_to_left(cell.text)
            start, below = x + edge * at_right, y + edge + caption_gap
            _draw_lines(canvas, lines, start, below, size, TEXT_INK, at_right)
    return canvas
