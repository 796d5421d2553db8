"""Renders a line of text in a world's languages: fonts, direction, shaping.

HarfBuzz shapes and rasterises. Pillow's own layout cannot shape Arabic or Devanagari without
libfribidi, which its wheels do not include; and a machine may have no fonts, so `fonts/` and
`../emoji/fonts/` hold subsets of Noto.
"""

import functools
import itertools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import uharfbuzz as hb
from PIL import Image

FONT_FOLDER = Path(__file__).parent / "fonts"
NAMES_FOLDER = FONT_FOLDER.parents[1] / "emoji" / "fonts"  # the further letters of emoji's names
# Han and kana fill their square and look larger than Latin of the same size; Arabic is low.
FONT_SCALES = {
    "NotoSans.ttf": 1.0,
    "NotoSansArabic.ttf": 1.08,
    "NotoSansDevanagari.ttf": 1.0,
    "NotoSansThai.ttf": 1.0,
    "NotoSansJP.otf": 0.96,
    "NotoSansSC.otf": 0.96,
    "NotoSansKR.otf": 0.96,
}
# Looked for after the others, which keep their look.
FONT_SCALES |= {
    path.name: 0.96 if path.suffix == ".otf" else 1.0 for path in sorted(NAMES_FOLDER.glob("*.?tf"))
}
FONTS_OF_LANGUAGE = {
    "ar": ("NotoSansArabic.ttf",),
    "hi": ("NotoSansDevanagari.ttf",),
    "th": ("NotoSansThai.ttf",),
    "ja": ("NotoSansJP.otf", "NamesJP.otf"),
    "zh": ("NotoSansSC.otf", "NamesSC.otf"),
    "yue-Hans": ("NotoSansSC.otf", "NamesSC.otf"),
    "zh-Hant": ("NamesTC.otf",),
    "yue": ("NamesTC.otf",),
    "ko": ("NotoSansKR.otf", "NamesKR.otf"),
}


@dataclass(frozen=True)
class Line:
    """A shaped line.

    Attributes:
        text: its text, in reading order.
        glyphs: (font file, glyph, x, y) from left to right, y upwards, in ems.
        width: its width in ems.
    """

    text: str
    glyphs: tuple[tuple[str, int, float, float], ...]
    width: float


@functools.cache
def _face(file: str) -> tuple[hb.Font, frozenset[int]]:
    """Loads a font and its set of code points."""
    folder = NAMES_FOLDER if file.startswith("Names") else FONT_FOLDER
    face = hb.Face(hb.Blob.from_file_path(str(folder / file)))
    return hb.Font(face), frozenset(face.unicodes)


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction is right-to-left (Unicode Annex 9, P2 and P3)."""
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


def embedding_levels(text: str, right_to_left: bool) -> list[int]:
    """The bidirectional level of each character.

    This is Unicode Annex 9 without explicit embeddings and bracket pairs. A character's class is
    one letter, so that the annex's rules, named in comments, are substitutions: L left, R right,
    A Arabic letter, E number, N Arabic number, S sign, C separator, T terminator, M mark, O other.
    """
    names = ("L", "R", "AL", "EN", "AN", "ES", "CS", "ET", "NSM")
    letters = dict(zip(names, "LRAENSCTM", strict=True))
    base = "R" if right_to_left else "L"
    kinds = "".join(letters.get(unicodedata.bidirectional(sign), "O") for sign in text)
    kinds = f"{base}{kinds}{base}"
    kinds = re.sub(r"(.)M+", lambda found: found[1] * len(found[0]), kinds)  # W1
    kinds = re.sub(r"A[^LR]*", lambda found: found[0].replace("E", "N"), kinds)  # W2
    kinds = re.sub(r"(?<=E)[SC](?=E)", "E", kinds)  # W4
    kinds = re.sub(r"(?<=N)C(?=N)", "N", kinds)
    kinds = re.sub(r"T+(?=E)|(?<=E)T+", lambda found: "E" * len(found[0]), kinds)  # W5
    kinds = re.sub(r"L[^RA]*", lambda found: found[0].replace("E", "L"), kinds)  # W7
    kinds = re.sub(r"(?<=L)[SCTO]+(?=L)", lambda found: "L" * len(found[0]), kinds)  # N1
    kinds = re.sub(r"(?<=[RAEN])[SCTO]+(?=[RAEN])", lambda found: "R" * len(found[0]), kinds)
    kinds = re.sub(r"[SCTO]", base, kinds)  # N2
    levels = {"L": 2 if right_to_left else 0, "R": 1, "A": 1, "E": 2, "N": 2}  # I1, I2
    return [levels[kind] for kind in kinds[1:-1]]


def _font_files(text: str, language: str) -> list[str]:
    """The font of each character: the language's own, or else the first one with the character."""
    own = FONTS_OF_LANGUAGE.get(language, ("NotoSans.ttf",))
    files: list[str] = []
    for character in text:
        follows = files[-1:] if unicodedata.category(character) in ("Mn", "Mc", "Cf") else []
        order = [*follows, *own, *FONT_SCALES]
        having = (file for file in order if ord(character) in _face(file)[1])
        files.append(next(having, order[0]))
    return files


def has_glyphs(text: str) -> bool:
    """Whether each visible character is in one of the fonts, which are subsets."""
    visible = (c for c in text if not c.isspace() and unicodedata.category(c) != "Cf")
    return all(any(ord(c) in _face(file)[1] for file in FONT_SCALES) for c in visible)


@functools.lru_cache(maxsize=65536)
def shape_line(text: str, language: str, right_to_left: bool) -> Line:
    """Shapes one line. A character that no font has becomes an empty box."""
    levels = embedding_levels(text, right_to_left)
    keys = list(zip(levels, _font_files(text, language), strict=True))
    groups = itertools.groupby(range(len(text)), key=keys.__getitem__)
    runs = [(*key, "".join(text[i] for i in members)) for key, members in groups]
    for least in range(max(levels, default=0), 0, -1):  # L2: reverse runs of at least this level
        groups = itertools.groupby(runs, key=lambda run, least=least: run[0] >= least)
        runs = [run for deep, part in groups for run in (reversed(list(part)) if deep else part)]
    glyphs, pen = [], 0.0
    for level, file, part in runs:
        font = _face(file)[0]
        buffer = hb.Buffer()
        buffer.add_str(part)
        buffer.guess_segment_properties()
        buffer.direction = "rtl" if level % 2 else "ltr"
        buffer.language = language
        hb.shape(font, buffer)
        em = FONT_SCALES[file] / font.face.upem
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            x, y = pen + position.x_offset * em, position.y_offset * em
            glyphs.append((file, info.codepoint, x, y))
            pen += position.x_advance * em
    return Line(text, tuple(glyphs), pen)


def draw_line(
    canvas: Image.Image,
    line: Line,
    x: float,
    baseline: float,
    size: float,
    color: tuple[int, int, int],
) -> None:
    """Draws a shaped line in place.

    Args:
        canvas: an RGB picture.
        line: from `shape_line`.
        x: x of the line's left end, in pixels.
        baseline: y of the baseline, in pixels downwards.
        size: pixels per em.
        color: RGB colour of the text.
    """
    raster = hb.RasterDraw()
    left, top, bottom = int(x - size), int(baseline - 2 * size), int(baseline + 2 * size)
    width, height = int((line.width + 3) * size), bottom - top
    raster.extents = hb.RasterExtents(left, -bottom, width, height, 0)
    for file, glyph, glyph_x, glyph_y in line.glyphs:
        font = _face(file)[0]
        scale = size * FONT_SCALES[file] / font.face.upem
        raster.transform = (scale, 0.0, 0.0, scale, x + glyph_x * size, glyph_y * size - baseline)
        raster.draw_glyph(font, glyph)
    rendered = raster.render()
    stride = rendered.extents.stride
    mask = Image.frombytes("L", (width, height), rendered.buffer, "raw", "L", stride, -1)
    canvas.paste(color, (left, top), mask)
