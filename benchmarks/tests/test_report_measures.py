"""Numbers, intervals, rows and groups of the report, and which of a column is marked."""

import pytest

from crosslingual_benchmarks.report.arms import arms_of
from crosslingual_benchmarks.report.groups import groups_of, note_on_groups
from crosslingual_benchmarks.report.languages import direction, in_order
from crosslingual_benchmarks.report.matrices import arms_by_languages, every_metric
from crosslingual_benchmarks.report.measures import Measure, Number, best_of, mean_number, number_of

SEEDS_TASK = "text_to_image"
SHARE = Measure("text_accuracy", "text accuracy", 100, 1, "high")


def line(model, language="de", value=0.5, half_width=0.05, **further):
    return {
        "task": "text_to_image",
        "dataset": "testbed",
        "model": model,
        "language": language,
        "metrics": {"text_accuracy": value},
        "interval95": {"text_accuracy": [value - half_width, value + half_width]},
        "protocol": {"steps": 20},
        **further,
    }


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_the_best_is_marked_where_its_interval_shares_no_point_with_any_other():
    apart = [Number(0.5, 0.4, 0.55), Number(0.7, 0.6, 0.8), None]
    assert best_of(apart, "high", is_exact=False) == 1
    assert best_of(apart, "low", is_exact=False) == 0


@pytest.mark.parametrize(
    "other",
    [Number(0.5, 0.4, 0.6), Number(0.5), Number(0.7, 0.6, 0.8)],
    ids=["touching", "without an interval", "equal"],
)
def test_nothing_is_marked_where_intervals_touch_or_are_unknown(other):
    assert best_of([other, Number(0.7, 0.6, 0.8)], "high", is_exact=False) is None


def test_counts_are_ranked_without_intervals_unless_two_are_equal():
    assert best_of([Number(7), Number(6), Number(9)], "low", is_exact=True) == 1
    assert best_of([Number(6), Number(6), Number(9)], "low", is_exact=True) is None
    assert best_of([Number(6)], "low", is_exact=True) is None
    assert best_of([Number(6), Number(7)], "", is_exact=True) is None


def test_the_interval_of_a_mean_over_languages_is_the_mean_of_the_bounds():
    mean = mean_number([Number(0.2, 0.1, 0.3), Number(0.6, 0.4, 0.9)])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.4, 0.25, 0.6))
    assert mean_number([Number(0.2, 0.1, 0.3), Number(0.6)]) == Number(0.4)
    assert mean_number([]) is None


def test_a_number_beside_the_metrics_is_found_with_its_interval():
    result = {"metrics": {}, "mean_recall": 0.4, "interval95": {"mean_recall": [0.3, 0.5]}}
    assert number_of(result, "mean_recall") == Number(0.4, 0.3, 0.5)
    assert number_of(result, "fid") is None


def test_a_model_with_weights_for_each_language_is_one_row():
    lines = [line("iap", "de", pretrained="runs/de"), line("iap", "zh", pretrained="runs/zh")]
    assert [arm.label for arm in arms_of(lines)] == ["IAP"]


def test_seeds_are_one_row_with_their_mean_and_ends_in_tables_by_language():
    values = {0: (0.2, 0.4), 1: (0.6, 0.6), 2: (0.4, 0.8)}
    lines = [
        line("pea", language, value, seed=seed, pretrained=f"runs/{seed}", trained_languages=["de"])
        for seed, pair in values.items()
        for language, value in zip(("de", "zh"), pair, strict=True)
    ]
    (group,) = groups_of([*lines, line("as_is", "de", 0.1), line("as_is", "zh", 0.1)], SEEDS_TASK)
    table = arms_by_languages(group, SHARE, "key", "title", group.note)
    assert table.heads == [
        "arm",
        "mean foreign (2)",
        "mean trained (1)",
        "mean zero-shot (1)",
        "de",
        "zh",
    ]
    assert texts(table)[0] == ["PEA (3 seeds)", "50.0", "40.0", "60.0", "40.0", "60.0"]
    asides = [cell.aside for cell in table.rows[0]]
    # the mean over languages moves less over seeds than each language does
    assert asides == ["", "30.0, 60.0", "20.0, 60.0", "40.0, 80.0", "20.0, 60.0", "40.0, 80.0"]
    assert "the lowest and the highest" in table.note
    every = every_metric(group, [SHARE], "key", "title")
    assert [row[1].text for row in every.rows[:3]] == [f"PEA (seed {n})" for n in range(3)]


def test_seeds_and_weights_that_differ_are_rows_of_their_own():
    seeds = [
        line("iap", x, pretrained=f"runs/{x}{s}", seed=s) for s in (0, 1) for x in ("de", "zh")
    ]
    assert [arm.label for arm in arms_of(seeds)] == ["IAP (seed 0)", "IAP (seed 1)"]
    weights = [line("pea", pretrained=name, seed=0) for name in ("a", "b")]
    assert [arm.label for arm in arms_of(weights)] == ["PEA (a)", "PEA (b)"]


def test_lines_of_different_metrics_share_a_row():
    general, culture = line("pea", pretrained="a"), line("pea", pretrained="b")
    culture["metrics"] = {"culture_score": 0.25}
    (arm,) = arms_of([general, culture])
    assert arm.number("culture_score", "de") == Number(0.25)
    assert arm.number("text_accuracy", "de").value == 0.5


def test_means_go_over_trained_and_zero_shot_languages_and_leave_english_out():
    values = {"en": 0.9, "de": 0.6, "fr": 0.5, "zh": 0.1}
    trained = {"trained_languages": ["en", "de", "fr"]}
    lines = [line("pea", x, value, **trained) for x, value in values.items()]
    (group,) = groups_of(lines, "text_to_image")
    table = arms_by_languages(group, SHARE, "key", "title")
    heads = ["arm", "mean foreign (3)", "mean trained (2)", "mean zero-shot (1)"]
    assert table.heads == [*heads, "en", "de", "fr", "zh"]
    assert texts(table) == [["PEA", "40.0", "55.0", "10.0", "90.0", "60.0", "50.0", "10.0"]]


def test_a_mean_over_fewer_languages_says_so_and_is_not_ranked():
    full = [line("pea", x, 0.5) for x in ("de", "fr")] + [
        line("mulan", x, 0.3) for x in ("de", "fr")
    ]
    (group,) = groups_of([*full, line("iap", "de", 0.9)], "text_to_image")
    table = arms_by_languages(group, SHARE, "key", "title")
    assert [row[1].text for row in table.rows] == ["50.0 (2)", "30.0 (2)", "90.0 (1)"]
    assert [row[1].is_best for row in table.rows] == [True, False, False]
    assert table.rows[2][3].text == "-"  # IAP has no French


def test_an_upper_bound_is_the_last_row_and_never_the_best():
    lines = [line("english_upper_bound", value=0.95), line("pea", value=0.6)]
    lines += [line("as_is", value=0.1), line("mine", value=0.99, prompt_language="english")]
    (group,) = groups_of(lines, "text_to_image")
    table = every_metric(group, [SHARE], "key", "title")
    assert [row[1].text for row in table.rows] == ["PEA", "as-is", "English upper bound", "mine"]
    assert [row[2].is_best for row in table.rows] == [True, False, False, False]
    assert table.reference_rows == {2, 3}


def test_lines_without_a_language_keep_a_row_beside_those_with_one():
    whole = line("pea", value=0.25)
    del whole["language"]
    (group,) = groups_of([line("pea"), whole], "text_to_image")
    assert texts(every_metric(group, [SHARE], "key", "t")) == [
        ["de", "PEA", "50.0"],
        ["all", "PEA", "25.0"],
    ]


def test_a_group_says_what_sets_it_apart_and_why_it_stands_alone():
    other = line("pea", protocol={"steps": 50})
    groups = groups_of([line("pea"), other], "text_to_image")
    assert [group.name for group in groups] == ["testbed, steps 20", "testbed, steps 50"]
    (note,) = note_on_groups(groups, "generation")
    assert "2 groups" in note and "protocol (steps)" in note and "dataset" not in note
    assert not list(note_on_groups(groups[:1], "generation"))


def test_two_hashes_of_one_dataset_are_told():
    lines = [line("pea", dataset_sha256="aa"), line("mulan", dataset_sha256="bb")]
    (group,) = groups_of(lines, "text_to_image")
    assert "2 versions of the dataset" in group.note
    (same,) = groups_of(lines[:1], "text_to_image")
    assert "versions" not in same.note


def test_arabic_runs_to_the_left_and_english_comes_first():
    assert [direction(x) for x in ("العربية", "Deutsch", "3 نجوم", "12")] == [
        "rtl",
        "ltr",
        "rtl",
        "ltr",
    ]
    assert in_order({"zh", "en", "ar"}) == ["en", "ar", "zh"]
