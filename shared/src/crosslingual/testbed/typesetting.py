"""Text in the eighteen languages as pixels: fonts, direction, shaping, line breaks.

HarfBuzz shapes and rasterises. Pillow's own layout does neither Arabic nor Devanagari where libfribidi, which its
wheels do not bring, is absent; and a machine need not have any font, so subsets of Noto lie in `fonts/`.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import uharfbuzz as hb
from PIL import Image

from crosslingual.testbed.captions import lexicon

FONT_FOLDER = Path(__file__).parent / "fonts"
# Han and kana fill their square and look larger than Latin of the same size; Arabic's letters are low.
FONT_SCALES = {
    "NotoSans.ttf": 1.0,
    "NotoSansArabic.ttf": 1.08,
    "NotoSansDevanagari.ttf": 1.0,
    "NotoSansThai.ttf": 1.0,
    "NotoSansJP.otf": 0.96,
    "NotoSansSC.otf": 0.96,
    "NotoSansKR.otf": 0.96,
}
FONT_OF_LANGUAGE = {
    "ar": "NotoSansArabic.ttf",
    "hi": "NotoSansDevanagari.ttf",
    "th": "NotoSansThai.ttf",
    "ja": "NotoSansJP.otf",
    "zh": "NotoSansSC.otf",
    "ko": "NotoSansKR.otf",
}

HIRAGANA, KATAKANA, HAN = "\u3041-\u309f", "\u30a0-\u30ff", "\u2e80-\u2fdf\u3005\u3400-\u9fff"
THAI_LEADING, THAI = "\u0e40-\u0e44", "\u0e01-\u0e3f\u0e45-\u0e5b"
OPENING, CLOSING = "(\\[{“‘「『（《〈【", ")\\]}”’」』）》〉】、。，．！？：；…"


@dataclass(frozen=True)
class Line:
    """A shaped line: (font file, glyph, x, y) with x to the right and y upwards, in ems, and its width in ems."""

    glyphs: tuple[tuple[str, int, float, float], ...]
    width: float


@functools.cache
def _face(file: str) -> tuple[hb.Font, frozenset[int]]:
    """A font and the code points that it has."""
    face = hb.Face(hb.Blob.from_file_path(str(FONT_FOLDER / file)))
    return hb.Font(face), frozenset(face.unicodes)


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs to the left (Unicode Annex 9, rules P2 and P3)."""
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


def embedding_levels(text: str, right_to_left: bool) -> list[int]:
    """The bidirectional level of each character: Unicode Annex 9 without explicit embeddings and bracket pairs."""
    kinds = [unicodedata.bidirectional(character) for character in text]
    for i in range(1, len(kinds) - 1):  # 3.5 is one number
        if kinds[i] in ("ES", "CS") and kinds[i - 1] == kinds[i + 1] in ("EN", "AN"):
            kinds[i] = kinds[i - 1]
    base = "R" if right_to_left else "L"
    strong, resolved = base, []
    for kind in kinds:
        if kind in ("L", "R", "AL"):
            strong = "L" if kind == "L" else "R"
            resolved.append(strong)
        elif kind in ("EN", "AN"):
            resolved.append("L" if kind == "EN" and strong == "L" else "number")
        else:
            resolved.append(resolved[-1] if kind == "NSM" and resolved else "neutral")
    sides = [base, *("R" if kind == "number" else kind for kind in resolved), base]
    for i, kind in enumerate(
        resolved
    ):  # a neutral between two of a direction takes it, else the line's
        if kind == "neutral":
            after = next(side for side in sides[i + 2 :] if side != "neutral")
            sides[i + 1] = resolved[i] = after if after == sides[i] else base
    levels = {"L": 2 if right_to_left else 0, "R": 1, "number": 2}
    return [levels[kind] for kind in resolved]


def _font_files(text: str, language: str) -> list[str]:
    """The font of each character: the language's own where it has the character, else the first that has."""
    own = FONT_OF_LANGUAGE.get(language, "NotoSans.ttf")
    files: list[str] = []
    for character in text:
        follows = files[-1:] if unicodedata.category(character) in ("Mn", "Mc", "Cf") else []
        order = [*follows, own, *FONT_SCALES]
        files.append(next((file for file in order if ord(character) in _face(file)[1]), order[0]))
    return files


@functools.lru_cache(maxsize=65536)
def shape_line(text: str, language: str, right_to_left: bool) -> Line:
    """Shapes one line. A character that no font has becomes its font's empty box."""
    levels = embedding_levels(text, right_to_left)
    keys = list(zip(levels, _font_files(text, language), strict=True))
    groups = itertools.groupby(range(len(text)), key=keys.__getitem__)
    runs = [(*key, "".join(text[i] for i in members)) for key, members in groups]
    for level in range(
        max(levels, default=0), 0, -1
    ):  # rule L2: reverse what is at this level or deeper
        groups = itertools.groupby(runs, key=lambda run, level=level: run[0] >= level)
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
            glyphs.append(
                (file, info.codepoint, pen + position.x_offset * em, position.y_offset * em)
            )
            pen += position.x_advance * em
    return Line(tuple(glyphs), pen)


@functools.cache
def _piece_pattern(language: str) -> re.Pattern[str]:
    """Matches what may not be broken: a word, or in the scripts without spaces a word of the lexicon.

    Elsewhere Thai breaks before a leading vowel (a syllable starts there), Japanese before kanji and katakana (a
    phrase starts there, particles end it), Chinese anywhere but before 的 and after 一.
    """
    words: set[str] = set()
    if language in ("th", "ja", "zh"):
        own = lexicon(language)
        nouns = (text for forms in own.nouns.values() for text in forms.values())
        phrases = (
            text
            for texts in own.relations.values()
            for pattern in texts
            for text in re.split(r"\{.*?\}", pattern)
        )
        adjectives = (
            form for form in (*own.colors.values(), *own.sizes.values()) if isinstance(form, str)
        )
        words = {
            text
            for text in (*nouns, *phrases, *adjectives)
            if len(text) > 1 and ord(text[0]) > 0x2FF
        }
    unspaced = HIRAGANA + KATAKANA + HAN + THAI_LEADING + THAI
    syllables = [
        f"一?[{HAN}]",
        f"[{KATAKANA}]+",
        f"[{HIRAGANA}]+",
        f"[{THAI_LEADING}]?[{THAI}]+",
        f"[^\\s{unspaced}]+",
    ]
    body = "|".join([*map(re.escape, sorted(words, key=len, reverse=True)), *syllables])
    trailing = CLOSING + (HIRAGANA if language == "ja" else "的")
    return re.compile(f"(?:[{OPENING}]*(?:{body})[{trailing}]*|\\S)\\s*")


def _graphemes(text: str) -> list[str]:
    """The text cut where a reader sees a new sign: never before a mark, nor after a virama or a joiner."""
    parts: list[str] = []
    for character in text:
        joins = bool(parts) and (
            unicodedata.combining(parts[-1][-1]) == 9 or parts[-1][-1] == "\u200d"
        )
        mark = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        if parts and (joins or mark or character.isspace()):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def wrap(text: str, language: str, max_width: float) -> list[Line]:
    """Breaks a text into the fewest lines that are at most `max_width` ems wide, and evens them out.

    Args:
        text: the text; runs of white space count as one space.
        language: its BCP-47 code, which decides on the shapes of Han characters and on the breaks of Thai,
            Japanese and Chinese. What is not one of the eighteen is set as it comes.
        max_width: in ems; a word that is wider is broken between characters.
    """
    text = " ".join(text.split())
    right_to_left = is_right_to_left(text)

    def shaped(line: str) -> Line:
        return shape_line(line.rstrip(), language, right_to_left)

    def fill(pieces: Iterable[str], width: float) -> list[str]:
        lines: list[str] = []
        for piece in pieces:
            if lines and shaped(lines[-1] + piece).width <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
        return lines

    words = [match.group() for match in _piece_pattern(language).finditer(text)]
    pieces = [
        part
        for word in words
        for part in ([word] if shaped(word).width <= max_width else _graphemes(word))
    ]
    widest = max((shaped(piece).width for piece in pieces), default=0.0)
    low, high = min(widest, max_width), max_width
    num_lines = len(fill(pieces, max_width))
    while high - low > 0.25:
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(pieces, middle)) == num_lines else (middle, high)
    return [shaped(line) for line in fill(pieces, high)]


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
        line: from `wrap`.
        x: of the line's left end, in pixels.
        baseline: its y, in pixels downwards.
        size: pixels an em.
        color: of the text.
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
