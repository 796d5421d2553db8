"""Means and covariances go to files and come back, and other programs' files are read."""

import numpy as np
import pytest

from crosslingual_benchmarks.metrics.feature_statistics import (
    FeatureStatistics,
    feature_statistics,
    read_statistics,
    write_statistics,
)
from crosslingual_benchmarks.metrics.frechet import (
    frechet_distance,
    frechet_distance_of_statistics,
)


def two_sets():
    draw = np.random.default_rng(0)
    return draw.normal(size=(100, 8)), 1.3 * draw.normal(size=(90, 8)) + 0.2


def test_statistics_come_back_from_their_file(tmp_path):
    a, b = two_sets()
    path = tmp_path / "real.stats"
    write_statistics(path, feature_statistics(a))
    with np.load(path) as arrays:  # as other programs read it
        np.testing.assert_array_equal(arrays["mu"], a.mean(axis=0))
        np.testing.assert_array_equal(arrays["sigma"], np.cov(a, rowvar=False))
    found = frechet_distance_of_statistics(read_statistics(path), feature_statistics(b))
    assert found.value == pytest.approx(frechet_distance(a, b).value, abs=1e-9)
    assert (found.num_rows_a, found.num_rows_b) == (100, 90)


def test_statistics_of_other_programs_are_read_without_a_count(tmp_path):
    a, b = two_sets()
    path = tmp_path / "real.npz"
    np.savez(path, mu=a.mean(axis=0), sigma=np.cov(a, rowvar=False).astype(np.float32))
    found = frechet_distance_of_statistics(read_statistics(path), read_statistics(path))
    assert found.num_rows_a is None and found.warning is None
    found = frechet_distance_of_statistics(read_statistics(path), feature_statistics(b[:5]))
    assert "5 pictures in 8 dimensions" in found.warning


def test_files_that_hold_no_statistics_are_refused(tmp_path):
    path = tmp_path / "real.npz"
    with pytest.raises(FileNotFoundError, match="no statistics at .*real.npz"):
        read_statistics(path)
    path.write_bytes(b"mu and sigma")
    with pytest.raises(ValueError, match="real.npz is no npz"):
        read_statistics(path)
    np.savez(path, mu=np.zeros(2), cov=np.eye(2))
    with pytest.raises(ValueError, match=r"lacks sigma; it has \['cov', 'mu'\]"):
        read_statistics(path)
    np.savez(path, mu=np.array([print], dtype=object), sigma=np.eye(2))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_statistics(path)


@pytest.mark.parametrize(
    ("mu", "sigma", "message"),
    [
        (np.zeros(2), np.eye(3), r"shapes \(2,\) and \(3, 3\)"),
        (np.array([0, np.nan]), np.eye(2), "not finite"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.1, 1.0]]), "not symmetric"),
        (np.zeros(2), np.diag([1.0, -0.2]), "variance is negative"),
    ],
)
def test_what_is_no_mean_and_covariance_is_refused(mu, sigma, message):
    good = FeatureStatistics(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match=message):
        frechet_distance_of_statistics(good, FeatureStatistics(mu, sigma))


def test_statistics_of_other_widths_are_refused():
    with pytest.raises(ValueError, match="widths 2 and 3"):
        frechet_distance_of_statistics(
            FeatureStatistics(np.zeros(2), np.eye(2)), FeatureStatistics(np.zeros(3), np.eye(3))
        )
