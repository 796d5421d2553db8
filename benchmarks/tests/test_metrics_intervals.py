"""Bootstrap intervals cover what they should, and are as wide as theory says."""

import numpy as np
import pytest
import torch

from crosslingual_benchmarks.metrics import intervals
from crosslingual_benchmarks.metrics.frechet import frechet_distance, kernel_distance
from crosslingual_benchmarks.metrics.intervals import interval_of_mean, interval_of_statistic


def share_covered(found, value):
    return sum(low <= value <= high for low, high in found) / len(found)


def test_a_fair_coins_interval_holds_a_half_in_95_of_100_repetitions():
    draw = np.random.default_rng(0)
    found = [interval_of_mean(draw.random(200) < 0.5, 300, seed) for seed in range(500)]
    assert share_covered(found, 0.5) == pytest.approx(0.95, abs=0.03)
    assert share_covered(found, 0.6) < 0.5


def test_the_interval_of_a_share_is_as_wide_as_a_proportions():
    hits = torch.arange(400) % 10 < 3
    low, high = interval_of_mean(hits, 4000)
    assert (low + high) / 2 == pytest.approx(0.3, abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * (0.3 * 0.7 / 400) ** 0.5, rel=0.1)


def test_the_interval_is_that_of_all_resamplings_by_enumeration():
    # of rows 0 and 1 the mean of a drawn pair is 0, 1/2, 1 in 1, 2, 1 of 4 cases
    assert interval_of_mean([0.0, 1.0]) == [0, 1]
    # of sixty 1s and forty 0s, the quantiles of a binomial (100, 0.6)
    low, high = interval_of_mean([1.0] * 60 + [0.0] * 40, 20_000)
    assert low == pytest.approx(0.50, abs=0.0101) and high == pytest.approx(0.69, abs=0.0101)


def test_intervals_repeat_by_seed_whatever_is_drawn_at_once(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    first = interval_of_mean(values, 100, seed=1)
    assert first == interval_of_mean(values, 100, seed=1) != interval_of_mean(values, 100, seed=2)
    monkeypatch.setattr(intervals, "NUM_DRAWN", 130)  # two resamplings at a time
    assert interval_of_mean(values, 100, seed=1) == first


def test_the_statistic_of_a_mean_has_the_means_interval():
    values = np.random.default_rng(0).normal(size=(300, 1))
    found = interval_of_statistic(np.mean, values, num_samples=1000)
    assert found == pytest.approx(interval_of_mean(values[:, 0]), abs=0.02)


@pytest.mark.parametrize(
    "statistic",
    [kernel_distance, lambda a, b: frechet_distance(a, b).value],
    ids=["kid", "fid"],
)
def test_distances_to_a_reference_are_covered_where_resamplings_are_not_centred(statistic):
    draw = np.random.default_rng(0)
    reference = draw.normal(size=(200, 12)) * 1.1 + 0.1

    def rows():
        return draw.normal(size=(60, 12))

    expected = np.mean([statistic(rows(), reference) for _ in range(500)])
    plain, shifted = [], []
    for seed in range(60):
        values = []

        def measure(rows, values=values):
            values.append(statistic(rows, reference))
            return values[-1]

        shifted.append(interval_of_statistic(measure, rows(), 60, seed))
        plain.append(np.quantile(values[1:], (0.025, 0.975)))
    assert share_covered(shifted, expected) > 0.85
    assert share_covered(plain, expected) < 0.7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values are empty"),
        ([1.0, np.nan, 0.0, np.inf], r"row 1 of values is not finite \(2 of 4"),
        ([[1.0], [2.0]], r"values have shape \(2, 1\)"),
    ],
)
def test_values_without_a_mean_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        interval_of_mean(values)


def test_statistics_without_a_value_are_refused():
    rows = np.arange(8.0)[:, None]
    with pytest.raises(ValueError, match="rows have 0 rows"):
        interval_of_statistic(np.mean, rows[:0])
    with pytest.raises(ValueError, match="11 of 11 values of the statistic are not finite"):
        interval_of_statistic(lambda a: np.nan, rows, num_samples=10)
    rows[5] = np.nan
    with pytest.raises(ValueError, match=r"row 5 of rows is not finite \(1 of 8"):
        interval_of_statistic(lambda a: 0.0, rows)


def test_resamplings_are_checked():
    with pytest.raises(ValueError, match="num_samples is 0"):
        interval_of_mean([0.0, 1.0], 0)
