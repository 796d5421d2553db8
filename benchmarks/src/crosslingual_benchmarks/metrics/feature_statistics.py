"""Means and covariances of features, and the npz files in which FID programs exchange them."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosslingual_benchmarks.metrics.rows import Rows, checked_rows

# N rows, D width of the features


@dataclass(frozen=True)
class FeatureStatistics:
    """What FID reads of a set of pictures.

    Attributes:
        mu_D: the mean of their features, fp64.
        sigma_DD: the covariance, divided by N - 1.
        num_rows: N; None where a file does not say.
    """

    mu_D: np.ndarray
    sigma_DD: np.ndarray
    num_rows: int | None = None


def feature_statistics(features_ND: Rows) -> FeatureStatistics:
    """Mean and covariance of features.

    Raises:
        ValueError: fewer than 2 rows, or a row that is not finite.
    """
    rows_ND = checked_rows(features_ND, "features")
    sigma_DD = np.atleast_2d(np.cov(rows_ND, rowvar=False))
    return FeatureStatistics(rows_ND.mean(axis=0), sigma_DD, len(rows_ND))


def write_statistics(path: str | Path, statistics: FeatureStatistics) -> None:
    """Writes `mu` and `sigma` as the npz that FID programs exchange, and `num_rows` where known,
    which others pass over.
    """
    arrays = {"mu": statistics.mu_D, "sigma": statistics.sigma_DD}
    if statistics.num_rows is not None:
        arrays["num_rows"] = np.asarray(statistics.num_rows)
    with open(path, "wb") as file:  # a file, since numpy adds .npz to other names
        np.savez(file, **arrays)


def read_statistics(path: str | Path) -> FeatureStatistics:
    """Reads an npz with `mu` and `sigma`, never a pickle.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no npz, or has other keys.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no statistics at {path}: give an npz with mu and sigma")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no npz with mu and sigma")
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in ("mu", "sigma") if name not in arrays]
        if missing:
            raise ValueError(f"{path} lacks {' and '.join(missing)}; it has {sorted(arrays)}")
        num_rows = int(arrays["num_rows"]) if "num_rows" in arrays else None
        mu_D, sigma_DD = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
    return FeatureStatistics(mu_D, sigma_DD, num_rows)
