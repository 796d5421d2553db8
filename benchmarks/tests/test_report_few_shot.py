"""Few names: curves over their number, and the least number that reaches a share of English."""

import pytest

from crosslingual_benchmarks.report.measures import Number
from crosslingual_benchmarks.report.sections.few_shot import few_shot_section, names_to


def line(model, language, value, **further):
    facts = {"name": {"chr": "Cherokee", "sw": "Swahili"}.get(language, "English")}
    facts |= {"encoder": "unknown" if language == "chr" else "known", "script": "", "family": ""}
    line = {"task": "text_to_image", "dataset": "emoji", "model": model, "language": language}
    line |= {"metrics": {"text_accuracy": value}, "protocol": {}, "language_facts": facts}
    return line | further


def lines():
    yield line("english", "en", 0.8)
    for names, unseen, known in ((30, 0.1, 0.3), (100, 0.2, 0.5), (300, 0.3, 0.4)):
        yield line(f"pea_{names}_names", "chr", unseen)
        yield line(f"pea_{names}_names", "sw", known)
    yield line("iap_30_names", "sw", 0.0)
    yield line("mulan", "chr", 0.1)  # it says no number of names


@pytest.mark.parametrize(("target", "names"), [(0.1, 30), (0.2, 100), (0.21, 300), (0.5, None)])
def test_a_target_is_reached_at_the_first_number_that_has_it(target, names):
    assert names_to({30: Number(0.1), 100: Number(0.2), 300: Number(0.3)}, target) == names


def test_the_section_answers_how_many_names_each_language_needs():
    section = few_shot_section(list(lines()))
    (table,), (figure,) = section.tables, section.figures
    assert table.heads[2:] == [
        "30 names, %",
        "100 names, %",
        "300 names, %",
        "names to a quarter of English",
        "names to half of English",
    ]
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [  # English has 0.8: a quarter is 0.2, half 0.4
        ["Cherokee, unknown to the encoder", "PEA", "10.0", "20.0", "30.0", "100", "-"],
        ["Cherokee, unknown to the encoder", "IAP", "-", "-", "-", "-", "-"],
        ["Swahili, known to the encoder", "PEA", "30.0", "50.0", "40.0", "30", "100"],
        ["Swahili, known to the encoder", "IAP", "0.0", "-", "-", "-", "-"],
    ]
    assert figure.png.startswith(b"\x89PNG") and "PEA, IAP" in figure.alt


def test_seeds_are_one_curve_with_their_ends():
    two = [line("english", "en", 0.8)]
    two += [line("pea_30_names", "chr", v, seed=s) for s, v in enumerate((0.1, 0.5))]
    (row,) = few_shot_section(two).tables[0].rows
    assert (row[2].text, row[2].aside, row[3].text) == ("30.0", "10.0, 50.0", "30")


def test_without_a_number_of_names_or_english_there_is_no_section():
    assert few_shot_section([line("english", "en", 0.8), line("pea", "chr", 0.1)]) is None
    assert few_shot_section([line("pea_30_names", "chr", 0.1)]) is None
