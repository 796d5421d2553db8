"""Breaks text into lines, in scripts with and without spaces."""

import functools
import re
import unicodedata
from collections.abc import Iterable

from crosslingual_worlds.drawn.captions import lexicon
from crosslingual_worlds.drawn.typesetting import Line, is_right_to_left, shape_line

HIRAGANA, KATAKANA, HAN = "\u3041-\u309f", "\u30a0-\u30ff", "\u2e80-\u2fdf\u3005\u3400-\u9fff"
THAI_LEADING, THAI = "\u0e40-\u0e44", "\u0e01-\u0e3f\u0e45-\u0e5b"
VIRAMA = 9  # its canonical combining class
OPENING, CLOSING = "(\\[{“‘「『（《〈【", ")\\]}”’」』）》〉】、。，．！？：；…"


def _unspaced_words(language: str) -> set[str]:
    """A lexicon's nouns and adjectives, and its templates' text between them."""
    own = lexicon(language)
    said = [text for forms in own.nouns.values() for text in forms.values()]
    said += [form for form in (*own.colors.values(), *own.sizes.values()) if isinstance(form, str)]
    for template in (template for texts in own.relations.values() for template in texts):
        said += re.split(r"\{.*?\}", template)
    return {text for text in said if len(text) > 1 and not text.isascii()}


@functools.cache
def _piece_pattern(language: str) -> re.Pattern[str]:
    """Matches unbreakable pieces: words, or the lexicon's words in scripts without spaces.

    For other text, Thai breaks before a leading vowel (a syllable starts there), Japanese before
    kanji and katakana (a phrase starts there, particles end it), Chinese anywhere except before 的
    and after 一, 大 and 小.
    """
    words = _unspaced_words(language) if language in ("th", "ja", "zh") else set()
    unspaced = HIRAGANA + KATAKANA + HAN + THAI_LEADING + THAI
    syllables = [f"[{HAN}]", f"[{KATAKANA}]+", f"[{HIRAGANA}]+"]
    syllables += [f"[{THAI_LEADING}]?[{THAI}]+", f"[^\\s{unspaced}]+"]
    longest_first = sorted(words, key=len, reverse=True)
    body = "|".join([*map(re.escape, longest_first), *syllables])
    trailing = CLOSING + (HIRAGANA if language == "ja" else "的")
    return re.compile(f"(?:[{OPENING}]*[一大小]?(?:{body})[{trailing}]*|\\S)\\s*")


def _graphemes(text: str) -> list[str]:
    """Splits text into graphemes: never before a mark, and never after a virama or a joiner."""
    parts: list[str] = []
    for character in text:
        last = parts[-1][-1] if parts else " "
        joins = last == "\u200d" or unicodedata.combining(last) == VIRAMA
        mark = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        if parts and (joins or mark or character.isspace()):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def wrap(text: str, language: str, max_width: float) -> list[Line]:
    """Breaks a text into the fewest lines of at most `max_width` ems, of similar widths.

    Args:
        text: the text; runs of white space count as one space.
        language: its BCP-47 code, which decides the shapes of Han characters and the breaks of
            Thai, Japanese and Chinese.
        max_width: maximum width in ems; a wider word is broken between characters.
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
    pieces: list[str] = []
    for word in words:
        pieces += [word] if shaped(word).width <= max_width else _graphemes(word)
    widest = max((shaped(piece).width for piece in pieces), default=0.0)
    low, high = min(widest, max_width), max_width
    num_lines = len(fill(pieces, max_width))
    while high - low > 0.25:
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(pieces, middle)) == num_lines else (middle, high)
    return [shaped(line) for line in fill(pieces, high)]
