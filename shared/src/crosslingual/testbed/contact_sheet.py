"""A contact sheet: pictures in rows and columns, each with its prompt below in the prompt's own script.

rows = [[Cell(picture, "ein großer roter Stern", "de", mark=True), ...], ...]
contact_sheet(rows, column_heads=["as-is", "with PEA"], row_heads=["de", ...]).save("grid.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from crosslingual.testbed.typesetting import Line, draw_line, is_right_to_left, wrap

PAGE = (255, 255, 255)
HEAD_INK = (38, 38, 38)
TEXT_INK = (92, 92, 92)
HAIRLINE = (224, 224, 224)
RIGHT = (44, 154, 106)
WRONG = (214, 76, 60)

# Lengths in widths of a picture, so that a sheet of another size looks the same.
TYPE_SIZE = 0.1
LINE_HEIGHT = 1.5  # in ems: room for Thai's and Vietnamese's stacked marks
MARGIN = 0.3
COLUMN_GAP = 0.19
ROW_GAP = 0.26
CAPTION_GAP = 0.07
MAX_ROW_HEAD = 0.9


@dataclass(frozen=True)
class Cell:
    """A picture and what it was to show.

    Attributes:
        picture: a square picture.
        text: the prompt, in any of the eighteen languages' scripts.
        language: the prompt's BCP-47 code.
        mark: True draws a green frame (right), False a red one (wrong), None a grey hairline.
    """

    picture: Image.Image
    text: str
    language: str
    mark: bool | None = None


def _draw_block(
    canvas: Image.Image,
    lines: list[Line],
    x: float,
    top: float,
    size: float,
    ink: tuple[int, int, int],
    right: float | None,
) -> None:
    """Draws lines below `top`, flush left at `x`, or flush right at `right`."""
    for number, line in enumerate(lines):
        baseline = round(top + size * (1.08 + number * LINE_HEIGHT))
        draw_line(
            canvas, line, x if right is None else right - line.width * size, baseline, size, ink
        )


def _draw_cell(
    canvas: Image.Image,
    cell: Cell,
    lines: list[Line],
    x: int,
    y: int,
    edge: int,
    resample: Image.Resampling,
) -> None:
    """Draws a picture with its frame outside, and its caption."""
    canvas.paste(cell.picture.convert("RGB").resize((edge, edge), resample), (x, y))
    unit = max(1, edge // 128)
    frame = unit if cell.mark is None else 2 * unit
    color = {None: HAIRLINE, True: RIGHT, False: WRONG}[cell.mark]
    box = (x - frame, y - frame, x + edge + frame - 1, y + edge + frame - 1)
    ImageDraw.Draw(canvas).rectangle(box, outline=color, width=frame)
    right = x + edge if is_right_to_left(cell.text) else None
    _draw_block(canvas, lines, x, y + edge * (1 + CAPTION_GAP), TYPE_SIZE * edge, TEXT_INK, right)


def contact_sheet(
    cells: Sequence[Sequence[Cell]],
    column_heads: Sequence[str] = (),
    row_heads: Sequence[str] = (),
    *,
    picture_size: int = 128,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Draws a grid of pictures with their prompts; a row is as high as its longest prompt.

    Args:
        cells: the rows, of equal length.
        column_heads: one a column, or none at all.
        row_heads: one a row, or none at all.
        picture_size: the edge at which every picture is drawn, in pixels; type and white space grow with it.
        resample: how pictures are enlarged.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if rows differ in length, or heads do not fit the grid.
    """
    num_columns = len(cells[0]) if cells else 0
    if not num_columns or any(len(row) != num_columns for row in cells):
        raise ValueError(
            f"a contact sheet takes rows of equal length, and these have {[len(row) for row in cells]} cells"
        )
    if len(column_heads) not in (0, num_columns) or len(row_heads) not in (0, len(cells)):
        raise ValueError(
            f"{len(column_heads)} column heads and {len(row_heads)} row heads do not fit {len(cells)} x {num_columns} cells"
        )
    edge, size = picture_size, TYPE_SIZE * picture_size
    captions = [[wrap(cell.text, cell.language, edge / size) for cell in row] for row in cells]
    heads = [wrap(text, "en", edge / size) for text in column_heads]
    labels = [wrap(text, text, MAX_ROW_HEAD * edge / size) for text in row_heads]

    margin, gap = round(MARGIN * edge), round(COLUMN_GAP * edge)
    label_width = max((line.width * size for label in labels for line in label), default=0.0)
    left = margin + (round(label_width) + gap if labels else 0)
    xs = [left + column * (edge + gap) for column in range(num_columns)]
    top = margin + (
        round(max(map(len, heads)) * LINE_HEIGHT * size + CAPTION_GAP * edge) if heads else 0
    )
    ys = [top]
    for row in captions:
        ys.append(
            ys[-1]
            + round(edge * (1 + CAPTION_GAP + ROW_GAP) + max(map(len, row)) * LINE_HEIGHT * size)
        )
    canvas = Image.new(
        "RGB", (xs[-1] + edge + margin, ys[-1] - round(ROW_GAP * edge) + margin), PAGE
    )

    for lines, x in zip(heads, xs, strict=False):
        head_top = top - CAPTION_GAP * edge - len(lines) * LINE_HEIGHT * size
        _draw_block(canvas, lines, x, head_top, size, HEAD_INK, None)
    for row, (cell_row, lines_row) in enumerate(zip(cells, captions, strict=True)):
        if labels:
            middle = ys[row] + (edge - len(labels[row]) * LINE_HEIGHT * size) / 2
            _draw_block(canvas, labels[row], margin, middle, size, HEAD_INK, None)
        for x, cell, lines in zip(xs, cell_row, lines_row, strict=True):
            _draw_cell(canvas, cell, lines, x, ys[row], edge, resample)
    return canvas
