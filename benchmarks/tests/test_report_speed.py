"""Quality per second: seconds to a share of English, over seeds, and what a page shows of them."""

from dataclasses import replace

import pytest

from crosslingual_benchmarks.report.sections.samples import samples_section
from crosslingual_benchmarks.report.sections.speed import (
    _line,
    quality_at,
    runs_of,
    seconds_to,
    speed_section,
)

CURVE = [(0.0, 0.0), (100.0, 0.5), (200.0, 0.9), (300.0, 0.7)]


@pytest.mark.parametrize(
    ("target", "seconds"), [(0.25, 50), (0.5, 100), (0.75, 162.5), (0.9, 200), (0.95, None), (0, 0)]
)
def test_the_first_moment_at_a_quality_lies_on_the_straight_line_between_points(target, seconds):
    assert seconds_to(CURVE, target) == (None if seconds is None else pytest.approx(seconds))


def test_quality_between_points_is_on_the_line_and_after_the_last_one_stays():
    at = [quality_at(CURVE, seconds) for seconds in (0, 50, 250, 300, 400)]
    assert at == pytest.approx([0.0, 0.25, 0.8, 0.7, 0.7])


def point(model, seconds, value, english=0.8, seed=None):
    metrics = {"seconds": seconds, "step": 1, "text_accuracy": value, "text_accuracy_en": english}
    line = {"task": "training_curve", "dataset": "testbed", "model": model, "metrics": metrics}
    return line | {"protocol": {"split": "val"}, "seed": seed, "point": f"{seconds}"}


def lines():
    yield point("as_is", 0, 0.0)  # English prompts: 0.8, so the target is 0.6
    for seed, end in enumerate((0.6, 0.8, 1.0)):
        yield point("pea", 300, end, english=0.4, seed=seed)
        yield point("pea", 150, end / 2, seed=seed)  # in any order
        yield point("mulan", 300, 0.3 * (seed + 1), seed=seed)


def test_an_arm_is_one_row_with_the_mean_and_the_ends_of_its_seeds():
    section = speed_section(list(lines()))
    (table,), (figure,) = section.tables, section.figures
    rows = {row[0].text: row[1:] for row in table.rows}
    assert table.heads[2] == "seconds to 75 % of English"
    pea = [(cell.text, cell.aside) for cell in rows["PEA"]]
    mean = (300 + 225 + 180) / 3
    assert pea == [
        ("3", ""),
        (f"{mean:.0f}", "180, 300"),
        ("300", "300, 300"),
        ("80.0", "60.0, 100.0"),
        ("40.0", "40.0, 40.0"),
    ]
    assert rows["MuLan"][1].text == "250 (2 of 3 seeds)" and rows["MuLan"][1].aside == "200, 300"
    assert rows["English upper bound"][-1].text == "80.0"
    assert figure.png.startswith(b"\x89PNG") and "PEA" in figure.alt


def test_a_plotted_line_goes_through_the_means_that_the_table_has():
    runs = runs_of([line for line in lines() if line["model"] == "pea"], start=0.0)["pea"]
    line = _line(
        "pea",
        [replace(run, curve=[*run.curve[:-1], (290.0 + n, 0.1 * n)]) for n, run in enumerate(runs)],
    )
    assert line.places == pytest.approx([0, 150, 291])
    assert [n.value for n in line.qualities] == pytest.approx([0, 0.4, 0.1])
    assert (line.qualities[-1].low, line.qualities[-1].high) == pytest.approx((0, 0.2))
    line = _line("pea", [runs[0], replace(runs[1], curve=[(0.0, 0.0), (200.0, 0.8)])])
    assert line.places == [0, 150, 200]  # up to where all seeds come
    assert [n.value for n in line.qualities] == pytest.approx([0, 0.45, 0.6])


def test_an_arm_that_never_comes_there_is_said_so_and_one_seed_has_no_ends():
    section = speed_section([point("as_is", 0, 0.0), point("iap", 300, 0.5, seed=0)])
    row = section.tables[0].rows[0]
    assert [cell.text for cell in row] == ["IAP", "1", "not reached", "300", "50.0", "80.0"]
    assert not any(cell.aside for cell in row)
    assert speed_section([point("as_is", 0, 0.0)]) is None


def test_samples_of_several_seeds_are_counted_and_none_stands_for_the_others():
    told = [
        {
            "task": "text_to_image",
            "model": "pea",
            "language": "de",
            "samples": [{"prompt": "ein Stern", "is_right": is_right}],
        }
        for is_right in (True, False, True)
    ]
    assert samples_section([], told).tables[0].rows[0][-1].text == "2 of 3 right"
    assert samples_section([], told[1:2]).tables[0].rows[0][-1].text == "wrong"
