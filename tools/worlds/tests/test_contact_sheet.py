import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont, features

from crosslingual_worlds.drawn.captions import LEXICON_FOLDER, caption, lexicon
from crosslingual_worlds.drawn.contact_sheet import PAGE, RIGHT, WRONG, Cell, contact_sheet
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.line_breaks import wrap
from crosslingual_worlds.drawn.typesetting import (
    FONT_FOLDER,
    FONT_SCALES,
    NAMES_FOLDER,
    draw_line,
    embedding_levels,
    has_glyphs,
    shape_line,
)
from crosslingual_worlds.drawn.world import Scene, Thing, motif_scenes

TWO = Scene(Thing("square", "purple", "big"), "right_of", Thing("triangle", "orange", "small"))
BLACK = Image.new("RGB", (64, 64), "black")


def glyphs(text: str, language: str) -> list[int]:
    return [glyph for _, glyph, _, _ in shape_line(text, language, language == "ar").glyphs]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_character_of_a_lexicon_has_a_glyph(language: str) -> None:
    words = set(
        re.sub(
            r"#.*", "", (LEXICON_FOLDER / f"{language}.yaml").read_text(encoding="utf-8")
        ).split()
    )
    assert all(0 not in glyphs(word, language) for word in words)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no libfribidi here")
def test_a_line_is_as_wide_as_pillow_sets_it(language: str) -> None:
    scenes = [TWO, *motif_scenes()[::5]]
    for text in (caption(scene, language) for scene in scenes):
        line = shape_line(text, language, language == "ar")
        (file,) = {file for file, *_ in line.glyphs}  # a caption needs no second font
        font = ImageFont.truetype(FONT_FOLDER / file, 1000, layout_engine=ImageFont.Layout.RAQM)
        ems = font.getlength(text, language=language) / 1000
        assert line.width == pytest.approx(ems * FONT_SCALES[file], abs=0.001 * len(text))


def test_arabic_letters_join_and_run_to_the_left() -> None:
    joined, alone = glyphs("قلب", "ar"), [glyphs(letter, "ar")[0] for letter in "بلق"]
    assert len(joined) >= 3 and joined[-1] != alone[-1]
    assert glyphs("قلب A", "ar")[0] == glyphs("A", "en")[0]


def test_devanagari_forms_conjuncts_and_moves_the_short_i() -> None:
    assert len(glyphs("क्ष", "hi")) == 1
    assert glyphs("हि", "hi")[1] == glyphs("ह", "hi")[0]


def test_thai_marks_take_no_width() -> None:
    assert shape_line("ที่", "th", False).width == shape_line("ท", "th", False).width


def test_han_characters_have_the_shape_of_their_language() -> None:
    files = {language: shape_line("角", language, False).glyphs[0][0] for language in ("ja", "zh")}
    assert files == {"ja": "NotoSansJP.otf", "zh": "NotoSansSC.otf"}


@pytest.mark.parametrize(
    ("text", "right_to_left", "levels"),
    [
        ("ab 12", False, "00000"),
        ("قب 12", True, "11122"),
        ("قب 3.5 ب", True, "11122211"),
        ("a قب b", False, "001100"),
        ("قب ab ق", True, "1112211"),
        ("אב 10-20", True, "11122222"),
        (
            "قب 10-20",
            True,
            "11122122",
        ),  # after an Arabic letter the sign stays outside of the numbers
        ("100% قب", True, "2222111"),
        ("a ق 5 b", False, "0011200"),
    ],
)
def test_levels_are_those_of_the_unicode_annex(text: str, right_to_left: bool, levels: str) -> None:
    assert "".join(map(str, embedding_levels(text, right_to_left))) == levels


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_fit_and_say_the_whole_text(language: str) -> None:
    for text in (
        text for scene in (TWO, *motif_scenes()) for text in lexicon(language).captions(scene)
    ):
        lines = wrap(text, language, 10.6)
        assert all(line.width <= 10.6 for line in lines)
        assert "".join(line.text for line in lines).replace(" ", "") == text.replace(" ", "")
        assert (
            all(word in " ".join(line.text for line in lines) for word in text.split())
            or " " not in text
        )


def test_lines_break_between_words_where_a_script_has_no_spaces() -> None:
    thai = [line.text for line in wrap(caption(TWO, "th"), "th", 11.0)]
    assert "|".join(thai).count("สี่เหลี่ยมจัตุรัส") == 1 and not any(line[0] in "ัะา" for line in thai)
    assert not any(line.text[0] in "のにあるな" for line in wrap(caption(TWO, "ja"), "ja", 8.0))
    assert not any(line.text[0] == "的" for line in wrap(caption(TWO, "zh"), "zh", 5.0))


def test_a_word_wider_than_the_line_is_broken_and_white_space_is_one_space() -> None:
    lines = wrap("a\n\tb " + "w" * 40, "en", 8.0)
    assert (
        len(lines) > 3
        and max(line.width for line in lines) <= 8.0
        and lines[0].text.startswith("a b")
    )
    assert wrap("", "en", 8.0) == []


def test_characters_that_no_font_has_are_drawn_as_boxes() -> None:
    canvas = Image.new("RGB", (200, 60), PAGE)
    (line,) = wrap("\U0001f600龘", "zh", 20.0)
    draw_line(canvas, line, 20, 40, 20, (0, 0, 0))
    assert [glyph for _, glyph, _, _ in line.glyphs] == [0, 0] and np.asarray(canvas).min() < 64


@pytest.mark.parametrize("size", [96, 128])
def test_nothing_overlaps_or_leaves_its_column(size: int) -> None:
    rows = [
        [Cell(BLACK, lexicon(language).captions(TWO)[-1], language)] * 2 for language in LANGUAGES
    ]
    sheet = contact_sheet(rows, ["W" * 30, "two"], list(LANGUAGES), picture_size=size)
    inked = (np.asarray(sheet) != PAGE).any(2)
    left = np.flatnonzero((np.asarray(sheet) == 0).all(2).any(0))[0]
    gap = slice(left + size + 2, left + size + round(0.19 * size) - 2)
    assert not inked[:, gap].any() and not inked[:, -round(0.2 * size) :].any()
    assert not inked[: round(0.2 * size)].any() and not inked[-round(0.2 * size) :].any()
    black = (np.asarray(sheet) == 0).all(2)[:, left + size // 2]
    tops = np.flatnonzero(np.diff(black.astype(int)) == 1)
    for top, after in zip(
        tops, tops[1:], strict=False
    ):  # below each caption there is white before the next row
        assert (
            black[top + 1 : top + 1 + size].all()
            and not inked[after - round(0.15 * size) : after - 1, left:].any()
        )


def test_marks_frame_the_picture_and_leave_it_whole() -> None:
    rows = [[Cell(BLACK, "a", "en", mark) for mark in (True, False, None)]]
    pixels = np.asarray(contact_sheet(rows, resample=Image.Resampling.NEAREST))
    colors = {tuple(color) for color in pixels.reshape(-1, 3).tolist()}
    assert {RIGHT, WRONG} <= colors
    assert (pixels == 0).all(2).sum() == 3 * 128 * 128


def test_a_row_head_is_set_in_its_languages_shapes() -> None:
    cells = [[Cell(BLACK, "", "en")]]
    sheets = [
        np.asarray(contact_sheet(cells, row_heads=["角"], row_languages=[language]))
        for language in ("zh", "ja")
    ]
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()


@pytest.mark.parametrize(
    ("cells", "heads"),
    [
        ([], []),
        ([[]], []),
        ([[Cell(BLACK, "", "en")], []], []),
        ([[Cell(BLACK, "", "en")]], ["a", "b"]),
    ],
)
def test_a_grid_that_does_not_fit_is_an_error(cells: list[list[Cell]], heads: list[str]) -> None:
    with pytest.raises(ValueError, match="rows of equal length|do not fit"):
        contact_sheet(cells, heads)


NAMES = {  # of the shark
    "am": "ሻርክ",
    "chr": "ᏗᎧᏳᎦ",
    "el": "καρχαρίας",
    "he": "כריש",
    "ka": "ზვიგენი",
    "ko": "상어",
    "or": "ଶାର୍କ୍\u200c",
    "si": "මෝරා",
    "ta": "சுறா",
    "yue-Hans": "鲨鱼",
    "zh-Hant": "鯊魚",
}


@pytest.mark.parametrize("language", NAMES)
def test_names_of_emoji_are_written_in_one_typeface(language):
    assert has_glyphs(NAMES[language])
    line = shape_line(NAMES[language], language, language == "he")
    assert all(glyph for _, glyph, _, _ in line.glyphs)  # 0 is the empty box
    assert len({file.replace("NotoSans", "Names") for file, _, _, _ in line.glyphs}) == 1


def test_larger_letters_need_more_room():
    rows = [[Cell(BLACK, "a large red star", "en")]]
    small, large = (contact_sheet(rows, type_size=size).height for size in (0.09, 0.2))
    assert large > small


def test_the_fonts_are_small_and_come_with_their_licence() -> None:
    files = list(Path(FONT_FOLDER).iterdir())
    assert sum(file.stat().st_size for file in files) < 600_000
    assert sum(file.stat().st_size for file in NAMES_FOLDER.iterdir()) < 1_200_000
    assert "SIL OPEN FONT LICENSE" in (FONT_FOLDER / "OFL.txt").read_text(encoding="utf-8")
