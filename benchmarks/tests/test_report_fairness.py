"""Fairness across languages: spreads by hand, their section, and the map of many languages."""

import pytest

from crosslingual_benchmarks.report.fairness import kinds_of, scripts_and_families, spread_of
from crosslingual_benchmarks.report.groups import groups_of
from crosslingual_benchmarks.report.language_map import in_two, language_map, rows_of
from crosslingual_benchmarks.report.matrices import arms_by_languages, languages_by_arms
from crosslingual_benchmarks.report.measures import Measure, Number
from crosslingual_benchmarks.report.sections.fairness import fairness_section
from crosslingual_benchmarks.report.sections.generation import generation_section

SHARE = Measure("text_accuracy", "text accuracy", 100, 1, "high")


def facts(encoder, script, family="x"):
    return {"name": "A language", "encoder": encoder, "script": script, "family": family}


FACTS = {
    "de": facts("known", "Latin"),
    "fr": facts("known", "Latin"),
    "ru": facts("known", "Cyrillic"),
    "to": facts("unknown", "Latin"),
    "ba": facts("unknown", "Cyrillic"),
}
VALUES = {"de": 1.0, "fr": 0.8, "ru": 0.6, "to": 0.2, "ba": 0.0}


def test_a_spread_is_what_a_hand_computes():
    spread = spread_of(VALUES, 0.9, FACTS, {"de"})
    assert (spread.num_languages, spread.mean) == (5, pytest.approx(0.52))
    assert (spread.worst, spread.best) == (0.0, 1.0)  # a tenth of five, rounded up, is one
    assert spread.below_half == pytest.approx(2 / 5)  # to and ba have less than 0.45
    # squares of the distances from 0.52: .2304 .0784 .0064 .1024 .2704
    assert spread.deviation == pytest.approx((0.688 / 5) ** 0.5)
    # fr ru to ba: mean 0.4, sum of squares .16 + .04 + .04 + .16; known 1 1 0 0, sum of squares 1;
    # sum of products .5 x (.4 + .2 + .2 + .4)
    assert spread.known == pytest.approx(0.6 / 0.4**0.5)
    # Latin .8 .2, Cyrillic .6 .0: within .18 + .18, and 1 - (.36 / 2) x 3 / .4
    assert spread.script == pytest.approx(1 - 0.18 * 3 / 0.4)


def test_a_tenth_is_rounded_up_to_whole_languages():
    values = {str(number): number / 100 for number in range(21)}
    spread = spread_of(values, None, {}, ())
    assert (spread.worst, spread.best) == pytest.approx((0.01, 0.19))  # three of twenty-one
    assert spread.below_half is None


@pytest.mark.parametrize(
    ("values", "known", "script"),
    [
        ({"de": 0.1, "to": 0.1, "ba": 0.1}, None, None),  # nothing varies, but for rounding
        ({"de": 0.3, "fr": 0.2}, None, None),  # all known, one script
        ({"de": 0.3, "ba": 0.1}, 1.0, None),  # a language a script
        ({"xx": 0.3, "yy": 0.1, "zz": 0.1}, None, None),  # of which nothing is told
    ],
)
def test_what_does_not_vary_has_no_correlation(values, known, script):
    spread = spread_of(values, 1.0, FACTS, ())
    assert spread.known == (None if known is None else pytest.approx(known))
    assert spread.script is script


def test_groups_of_languages_are_by_what_was_known_and_the_larger_first():
    languages = ["en", *FACTS, "xx"]
    assert kinds_of(languages, FACTS, ["en", "de"]) == {
        "trained": ["de"],
        "zero-shot, known to the encoder": ["fr", "ru"],
        "zero-shot, unknown to it": ["to", "ba"],
        "zero-shot": ["xx"],
    }
    assert list(scripts_and_families(languages, FACTS, ["de"]).items()) == [
        ("script: Cyrillic", ["ru", "ba"]),
        ("script: Latin", ["fr", "to"]),
        ("family: x", ["fr", "ru", "to", "ba"]),
    ]


LANGUAGES = [f"x{chr(97 + number)}" for number in range(24)]


def value_of(model, number):
    """Half of the languages are known, with 0.8, 0.6, 0.4 in turns; the others have nothing."""
    if model in ("english", "as_is"):
        return 0.9 if model == "english" else 0.0
    return (0.8, 0.6, 0.4)[number % 3] if number < 12 else 0.0


def lines(models=("english", "as_is", "pea"), languages=LANGUAGES, seed=0):
    for model in models:
        for number, language in enumerate(["en", *languages], -1):
            value = 0.9 if language == "en" else value_of(model, number)
            script = "Latin" if number % 2 else "Cyrillic"
            line = {"task": "text_to_image", "dataset": "emoji", "model": model, "seed": seed}
            line |= {"language": language, "metrics": {"text_accuracy": value}}
            line |= {"interval95": {"text_accuracy": [max(value - 0.196, 0), value + 0.196]}}
            line |= {"language_facts": facts("known" if number < 12 else "unknown", script)}
            line |= {"protocol": {"steps": 20}}
            trained = {"trained_languages": ["en", "xa"]} if model == "pea" else {}
            yield line | trained


def rows_by_head(table):
    return {row[0].text: row[1:] for row in table.rows}


def test_the_section_says_who_is_left_out():
    section = fairness_section(list(lines()))
    spreads, groups = section.tables
    assert spreads.heads[1:6] == [
        "languages",
        "mean, %",
        "worst tenth, %",
        "best tenth, %",
        "languages below half of English, %",
    ]
    pea = rows_by_head(spreads)["PEA"]
    # below 0.45: the twelve unknown ones and the four with 0.4
    assert [cell.text for cell in pea[:5]] == ["24", "30.0", "0.0", "80.0", "66.7"]
    assert float(pea[5].aside) == pytest.approx(100 * ((0.1**2 + 0.05**2) / 2) ** 0.5, abs=0.05)
    assert "English: 90.0 %" in spreads.note and spreads.reference_rows == {2}
    assert groups.heads == ["languages", "PEA", "as-is", "English upper bound"]
    told = {head: cells[0].text for head, cells in rows_by_head(groups).items()}
    assert told["trained (1)"] == "80.0"
    assert told["zero-shot, known to the encoder (11)"] == "58.2"  # 6.4 / 11
    assert told["zero-shot, unknown to it (12)"] == "0.0"
    assert "Trained: xa" in groups.note
    (figure,) = section.figures
    assert figure.png.startswith(b"\x89PNG") and "PEA, as-is" in figure.alt


def test_seeds_are_one_row_with_the_mean_of_each_language():
    two = [*lines(), *(line for line in lines(["pea"], seed=1))]
    row = rows_by_head(fairness_section(two).tables[0])["PEA (2 seeds)"]
    assert [cell.text for cell in row[:3]] == ["24", "30.0", "0.0"]


def test_few_languages_have_no_such_section():
    assert fairness_section(list(lines(languages=LANGUAGES[:19]))) is None
    assert fairness_section(list(lines(["english"]))) is None


def test_many_languages_stand_in_rows_and_few_in_columns():
    (group,) = groups_of(list(lines()), "text_to_image")
    table = arms_by_languages(group, SHARE, "a", "title")
    means = ["mean foreign (24)", "mean trained (1)", "mean zero-shot (23)"]
    assert table.heads == ["arm", *means, "en"]
    long = languages_by_arms(group, SHARE, "a", "title")
    assert long.heads[:3] == ["language", "kind", "PEA"] and len(long.rows) == 25
    assert [cell.text for cell in long.rows[1][:3]] == ["A language xa", "trained", "80.0"]
    (group,) = groups_of(list(lines(languages=LANGUAGES[:3])), "text_to_image")
    assert arms_by_languages(group, SHARE, "a", "title").heads[-4:] == ["en", "xa", "xb", "xc"]
    assert languages_by_arms(group, SHARE, "a", "title") is None


def test_a_page_of_many_languages_has_a_map_that_is_no_wider_than_the_page():
    (figure,) = generation_section(list(lines())).figures
    width, height = figure.size
    assert width == 1440 and height < 1000


def test_a_map_is_cut_in_two_and_the_cut_block_has_its_head_twice():
    blocks = {"a": {"x": [1], "y": [1]}, "b": {"z": [1], "u": [1], "v": [1]}}
    left, right = in_two(rows_of(blocks))
    assert [name for name, _ in left] == ["a (2)", "x", "y"]
    assert [name for name, _ in right] == ["b (3)", "z", "u", "v"]
    left, right = in_two(rows_of({"a": {"x": [1], "y": [1], "z": [1], "u": [1]}}))
    assert [name for name, _ in left] == ["a (4)", "x", "y"]
    assert [name for name, _ in right] == ["a (4) …", "z", "u"]


def test_a_map_of_one_language_without_numbers_is_drawn():
    assert language_map({"a": {"x": [None]}}, ["PEA"], scale=100, label="%").startswith(b"\x89PNG")
    assert language_map({"a": {"x": [Number(0.0)]}}, ["PEA"], scale=100, label="%")
