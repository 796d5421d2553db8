"""Prompts in two languages: what a page says of an arm's pairs against its languages alone."""

import pytest

from crosslingual_benchmarks.report.sections.code_mixing import code_mixing_section, pairs_of

ALONE = {"en": 0.9, "de": 0.8, "ar": 0.1}


def lines(seed, **changes):
    accuracies = ALONE | {"en+de": 0.7, "de+en": 0.5, "en+ar": 0.3, "ar+en": 0.1} | changes
    for language, value in accuracies.items():
        yield {
            "task": "code_mixing",
            "dataset": "testbed-mixed",
            "model": "pea",
            "language": language,
            "metrics": {"text_accuracy": value},
            "protocol": {"second_languages": ["en", "de"]},
            "seed": seed,
        }


def test_pairs_are_of_languages_that_train_or_of_one_that_does():
    pairs = pairs_of(["en", "de", "ar", "nl"], ["en", "de"])
    assert pairs["both trained"] == [("en", "de"), ("de", "en")]
    assert len(pairs["trained and zero-shot"]) == 8


def test_a_change_is_from_the_weaker_language_alone_and_the_mean_over_pairs_and_seeds():
    (table,) = code_mixing_section([*lines(0), *lines(1, **{"en+de": 0.8})]).tables
    (row,) = table.rows
    told = dict(zip(table.heads, [(cell.text, cell.aside) for cell in row], strict=True))
    assert told["arm"] == ("PEA (2 seeds)", "")
    assert told["one language, trained (2)"] == ("85.0", "85.0, 85.0")
    assert told["mixed, both trained (2)"] == ("62.5", "60.0, 65.0")
    assert told["change, both trained"] == ("-17.5", "-20.0, -15.0")
    # de+ar and ar+de were not measured
    assert told["change, trained and zero-shot"] == ("10.0", "10.0, 10.0")


@pytest.mark.parametrize("num_arms", [1, 2])
def test_every_arm_has_a_map_and_the_first_is_open(num_arms):
    told = [line | {"model": f"arm{n}"} for n in range(num_arms) for line in lines(0)]
    figures = code_mixing_section(told).figures
    assert [figure.is_folded for figure in figures] == [n > 0 for n in range(num_arms)]
    assert len({figure.key for figure in figures}) == num_arms
    assert all(figure.png.startswith(b"\x89PNG") for figure in figures)
    assert code_mixing_section([]) is None
