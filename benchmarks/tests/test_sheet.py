"""One prompt in all languages: which pictures a sheet has, their marks, and what it leaves out."""

import json

import pytest
from PIL import Image

from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.generation.sheet import in_rows, pictures_of

NAMES = {"de": "Hai", "ru": "акула", "ta": "😀", "fr": "requin"}


def result(language):
    line = {"task": "text_to_image", "dataset": "emoji", "model": "pea", "language": language}
    line |= {"metrics": {"text_accuracy": 0.5}, "protocol": {}}
    line |= {"language_facts": {"script": "Tamil" if language == "ta" else "Latin"}}
    marks = {"de": True, "ru": False}
    return line | {"samples": [{"prompt": NAMES[language], "is_right": marks.get(language)}]}


@pytest.fixture
def run(tmp_path):
    """A finished run in four languages; French has no picture of prompt 0."""
    (tmp_path / "generation.json").write_text(
        "".join(json.dumps(result(language)) + "\n" for language in NAMES), encoding="utf-8"
    )
    for language in ("de", "ru", "ta"):
        place = tmp_path / "pea-emoji" / language / "general" / "00000"
        (place / "samples").mkdir(parents=True)
        Image.new("RGB", (64, 64), "red").save(place / "samples" / "0000.png")
        (place / "metadata.jsonl").write_text(json.dumps({"prompt": NAMES[language]}) + "\n")
    return tmp_path


def test_pictures_are_those_that_are_there_with_their_marks(run):
    shown = pictures_of(run / "pea-emoji", [result(language) for language in NAMES], 0)
    assert [each[1:] for each in shown] == [
        ("Hai", "de", True),
        ("акула", "ru", False),
        ("😀", "ta", None),
    ]


def test_the_last_row_is_filled_up_and_languages_stand_before_prompts():
    white = Image.new("RGB", (8, 8))
    rows = in_rows([(white, "Hai", "de", True)] * 3, 2)
    assert [[cell[1] for cell in row] for row in rows] == [["de: Hai"] * 2, ["de: Hai", ""]]
    assert len(in_rows([(white, "Hai", "de", True)], 12)) == 1


def test_a_sheet_says_what_its_fonts_leave_out(run, capsys):
    out = run / "sheet.png"
    words = ["sheet", "--results", str(run), "--arm", "pea", "--output", str(out)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "2 languages, 1 of 2 judged pictures are right" in text
    assert "the fonts lack a letter of the name: Tamil (ta)" in text
    with Image.open(out) as sheet:
        assert sheet.width > 2 * 72 and len(sheet.convert("RGB").getcolors(1 << 20)) > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "iap"], "no arm iap on emoji; there are pea on emoji"),
        (["--arm", "pea", "--number", "7"], "no picture of prompt 7 in"),
    ],
)
def test_what_is_not_there_is_named(run, words, message, capsys):
    assert main(["sheet", "--results", str(run), *words]) == 2
    assert message in capsys.readouterr().err
