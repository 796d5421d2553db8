"""Costs by hand: hours, prices and points, measured ones apart from published ones."""

import json

import pytest

from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.cost.measured import point_costs, training_costs
from crosslingual_benchmarks.cost.verb import (
    CostSettings,
    cost,
    planned_costs,
    published_costs,
    reference_price,
)
from crosslingual_benchmarks.published.spans import divide, multiply, span_text

SECONDS = {"train_s": 1800.0, "num_processes": 2, "steps": 100, "step_s": 9.0}


def training(model, seed=0, protocol=None, stages=None, **metrics):
    line = {"task": "training", "dataset": "testbed", "model": model, "seed": seed}
    line |= {"metrics": SECONDS | metrics, "protocol": protocol or {"train_s": 1800}}
    return line | ({"stages": stages} if stages else {})


def pictures(model, language, text_accuracy, seed=0, **protocol):
    line = {"task": "text_to_image", "dataset": "general", "model": model, "language": language}
    line |= {"metrics": {"text_accuracy": text_accuracy}, "protocol": {"steps": 20} | protocol}
    return line | {"seed": seed}


def recall(model, language, mean_recall):
    line = {"task": "zeroshot_retrieval", "dataset": "general", "model": model}
    line |= {"metrics": {}, "mean_recall": mean_recall, "protocol": {"captions": "first"}}
    return line | {"language": language}


RESULTS = [
    training("pea", trainable_parameters=25, total_parameters=100, peak_gb=1.5),
    pictures("pea", "de", 0.5),
    pictures("pea", "hi", 0.3),
    pictures("as_is", "de", 0.2),
    pictures("as_is", "hi", 0.0),
]


def write(tmp_path, lines):
    path = tmp_path / "results.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def the_only(results, **options):
    ((group, costs),) = point_costs(results, 4.0, **options).items()
    (told,) = costs
    return told


def test_half_an_hour_on_two_devices_at_four_dollars_is_four_dollars():
    (paid,) = training_costs(RESULTS, 4.0)
    assert (paid.device_hours, paid.price, paid.step_hours) == (1.0, 4.0, 0.5)
    assert (paid.trainable_parameters, paid.total_parameters, paid.peak_gb) == (25, 100, 1.5)


def test_a_point_is_a_hundredth_and_a_point_gained_is_one_over_as_is():
    told = the_only(RESULTS)
    assert told.points == pytest.approx(40) and told.gained == pytest.approx(30)
    assert told.price_per_point == pytest.approx(4 / 40)
    assert told.price_per_gained == pytest.approx(4 / 30)
    assert told.languages == ("de", "hi") and told.reasons == ()


def test_english_counts_only_where_there_is_nothing_else_or_it_is_named():
    lines = [*RESULTS, pictures("pea", "en", 1.0), pictures("as_is", "en", 1.0)]
    assert the_only(lines).points == pytest.approx(40)
    assert the_only(lines, languages=["en", "de"]).points == pytest.approx(75)
    assert the_only([training("pea"), pictures("pea", "en", 1.0)]).points == pytest.approx(100)


def test_points_are_over_the_languages_that_are_named():
    told = the_only(RESULTS, languages=["de"])
    assert told.points == pytest.approx(50) and told.gained == pytest.approx(30)


def test_retrieval_is_priced_by_mean_recall_and_gains_over_clip():
    lines = [training("mclip"), recall("mclip", "de", 0.6), recall("clip", "de", 0.1)]
    told = the_only(lines, metric="mean_recall")
    assert told.price_per_point == pytest.approx(4 / 60)
    assert told.price_per_gained == pytest.approx(4 / 50)


def test_seeds_are_averaged():
    lines = [training("pea"), training("pea", seed=1, train_s=5400.0)]
    lines += [pictures("pea", "de", 0.2), pictures("pea", "de", 0.4, seed=1)]
    told = the_only(lines)
    assert told.training.num_runs == 2 and told.training.device_hours == 2.0
    assert told.points == pytest.approx(30)


def test_stages_with_steps_of_their_own_length_add_up():
    stages = [{"steps": 10, "step_s": 36.0}, {"steps": 20, "step_s": 72.0}]
    (paid,) = training_costs([training("altdiffusion", stages=stages)], 1.0)
    assert paid.step_hours == pytest.approx((10 * 36 + 20 * 72) * 2 / 3600)


def test_no_points_are_a_dash_with_a_reason_and_no_division():
    told = the_only([training("pea"), pictures("pea", "de", 0.0), pictures("as_is", "de", 0.0)])
    assert told.points == 0 and told.price_per_point is None and told.price_per_gained is None
    assert told.reasons == (
        "pea has 0 points: no price of one",
        "pea gains nothing over as_is: no price of a point gained",
    )


def test_a_loss_against_as_is_has_no_price_and_shows_as_a_loss():
    told = the_only([training("pea"), pictures("pea", "de", 0.1), pictures("as_is", "de", 0.3)])
    assert told.gained == pytest.approx(-20) and told.price_per_gained is None


@pytest.mark.parametrize(
    ("lines", "options", "reason"),
    [
        (RESULTS[:1], {}, "no text_accuracy line of pea"),
        (RESULTS, {"metric": "mean_recall"}, "no mean_recall line of pea"),
        (RESULTS, {"languages": ["de", "fr"]}, "no text_accuracy line of pea in fr"),
        (RESULTS[:4], {}, "no text_accuracy line of as_is in hi"),
    ],
)
def test_what_is_missing_is_said(lines, options, reason):
    told = the_only(lines, **options)
    assert reason in told.reasons and told.price_per_gained is None


def test_two_protocols_of_the_points_are_two_tables():
    lines = [*RESULTS, pictures("pea", "de", 0.9, guidance=7)]
    groups = point_costs(lines, 4.0)
    assert list(groups) == ["general, guidance 7, steps 20", "general, steps 20"]
    assert [costs[0].points for costs in groups.values()] == [pytest.approx(90), pytest.approx(40)]


def test_points_of_one_of_two_budgets_are_not_guessed():
    lines = [*RESULTS, training("pea", protocol={"train_s": 60})]
    (costs,) = point_costs(lines, 4.0).values()
    assert [told.points for told in costs] == [None, None]
    assert "2 trainings of pea" in costs[0].reasons[0]


@pytest.mark.parametrize(
    ("results", "price", "metric", "message"),
    [
        (RESULTS, 0.0, "text_accuracy", "price_per_hour is 0.0"),
        (RESULTS, float("nan"), "text_accuracy", "price_per_hour is nan"),
        (RESULTS, 1.0, "fid", "no points of 'fid'"),
        (RESULTS[1:], 1.0, "text_accuracy", "no line of the task training"),
    ],
)
def test_what_cannot_be_priced_is_an_error(results, price, metric, message):
    with pytest.raises(ValueError, match=message):
        point_costs(results, price, metric)


def test_a_published_row_implies_its_price_an_hour():
    implied = {told.row.method: told.implied_price for told in published_costs()}
    assert implied["Stable Diffusion v1.5"] == pytest.approx((32 / 15, 32 / 15))
    assert implied["AltDiffusion"] == pytest.approx((47_700 / 21_000,) * 2)
    assert implied["PEA-Diffusion"] == pytest.approx((500 / 200, 1000 / 100))
    assert implied["MuLan Adapter"] == (None, None)


def test_150_000_hours_at_the_implied_price_are_320_000_dollars_again():
    (first, *_) = published_costs()
    assert first.rederived == pytest.approx((320_000, 320_000))
    assert published_costs(1.0)[0].rederived == (150_000, 150_000)


def test_a_plan_is_hours_times_devices_times_each_price():
    plan = dict(planned_costs(24, 8, 2.5))
    assert plan["yours"] == 480
    assert plan["Stable Diffusion v1.5 (Table 1)"] == pytest.approx(192 * reference_price())
    assert "yours" not in dict(planned_costs(24, 8))
    with pytest.raises(ValueError, match="above 0"):
        planned_costs(0, 8)
    with pytest.raises(ValueError, match="above 0"):
        planned_costs(1, 0)


def test_the_command_prints_measured_and_published_apart(tmp_path, capsys):
    path = write(tmp_path, RESULTS)
    assert main(["cost", "--results", str(path), "--price_per_hour", "4"]) == 0
    measured, published, per_point = capsys.readouterr().out.split("ublished")[:3]
    assert "pea" in measured and "0.10000" in measured and "AltDiff" not in measured
    assert "pea " not in published + per_point


def test_results_without_a_price_are_an_error_with_the_reason(tmp_path, capsys):
    assert main(["cost", "--results", str(write(tmp_path, RESULTS))]) == 2
    assert "results need --price_per_hour" in capsys.readouterr().err


def test_without_results_the_published_costs_and_what_does_not_come_out_are_shown(capsys):
    cost(CostSettings(hours=1.0, format="markdown"))
    text = capsys.readouterr().out
    assert (
        "| AltDiffusion | \\~21,000 A100 | \\$47,700 | \\$2.27 | \\$44,800 | unsupported |" in text
    )
    assert "MURAL: 68.1 does not come out" in text and "Planned: 1 hours x 1 devices" in text
    assert "Measured" not in text


def test_different_languages_are_warned_of(tmp_path, capsys):
    lines = [*RESULTS, training("iap"), pictures("iap", "hi", 0.9)]
    main(["cost", "--results", str(write(tmp_path, lines)), "--price_per_hour", "1"])
    assert "languages differ, so their points do not compare" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--price_per_hour", "-1"], ["--hours", "-2"]])
def test_a_value_below_zero_is_an_error(arguments, capsys):
    assert main(["cost", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_spans_keep_what_is_not_known():
    assert divide((None, 1000), (65, 65)) == (None, 1000 / 65)
    assert divide((1, 2), (0, 4)) == (0.25, None)
    assert multiply((None, 3), (2, 2)) == (None, 6)
    assert [span_text(s) for s in [(None, 2), (2, None), (2, 2), (1.5, 2), (None, None)]] == [
        "<2",
        ">2",
        "2",
        "1.50-2.00",
        "-",
    ]
    assert span_text((1500, 2000), sign="$") == "$1,500-2,000"
