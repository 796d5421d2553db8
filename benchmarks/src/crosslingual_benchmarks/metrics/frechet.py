"""FID and KID: how far two sets of pictures lie apart in the features of a network.

The number depends on the features as much as on the pictures: `features.py` also returns the
extractor, the layer and the resize, for the result's protocol. Everything here is fp64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crosslingual_benchmarks.metrics import Metric, Score
from crosslingual_benchmarks.metrics.intervals import interval_of_statistic
from crosslingual_benchmarks.metrics.rows import Rows, checked_pair
from crosslingual_benchmarks.metrics.sample import Sample

# N, M rows of the two sets, D width of the features, R rows of a factor of a covariance

Distance = Callable[[np.ndarray], float]  # of a set to another one

CHUNK_ROWS = 2048  # kernel rows that exist at a time in `kernel_distance`


@dataclass(frozen=True)
class FrechetDistance:
    """A FID, at least 0, with the numbers of pictures and features."""

    value: float
    num_rows_a: int
    num_rows_b: int
    width: int

    @property
    def warning(self) -> str | None:
        """Why the value cannot be compared with others, or None.

        A covariance of fewer than D + 1 rows is singular, and FID is biased upwards by an amount
        that depends on the model as well as on the number of rows (Chong & Forsyth 2020,
        arXiv 1911.07023).
        """
        fewest = min(self.num_rows_a, self.num_rows_b)
        if fewest > self.width:
            return None
        return (
            f"FID from {fewest} pictures in {self.width} dimensions: the covariance is singular "
            "and the value too high; compare equal counts only, and read KID beside it"
        )


def frechet_distance(features_a_ND: Rows, features_b_MD: Rows) -> FrechetDistance:
    """FID: the squared Fréchet distance of the Gaussians with the two sets' means and covariances.

    `|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Heusel et al. 2017, arXiv 1706.08500,
    eq. 6; the distance: Dowson & Landau 1982), covariances divided by N - 1. With `S = F^T F`, as
    the centred rows over sqrt(N - 1) are such a factor, the trace of the root is the sum of the
    singular values of `F_a F_b^T`: the numbers that `eigvals(S_a S_b)` gives, without its negative
    and complex ones where a covariance is singular. Equal sets give 0.

    Both sets' features come from the same extractor, layer and resize.

    Raises:
        ValueError: fewer than 2 rows, a row that is not finite, different widths.
    """
    a_ND, b_MD = checked_pair(features_a_ND, features_b_MD)
    return FrechetDistance(_frechet_to(b_MD)(a_ND), len(a_ND), len(b_MD), a_ND.shape[1])


def _frechet_to(b_MD: np.ndarray) -> Distance:
    """The distance to a set whose mean and factor are computed once."""
    mu_b, b_RD = b_MD.mean(axis=0), _row_factor(b_MD)
    return lambda a_ND: _distance(a_ND.mean(axis=0), _row_factor(a_ND), mu_b, b_RD)


def _row_factor(rows_ND: np.ndarray) -> np.ndarray:
    """(R, D) whose F^T F is the covariance of the rows, R at most D."""
    centred_ND = (rows_ND - rows_ND.mean(axis=0)) / np.sqrt(len(rows_ND) - 1)
    return centred_ND if len(rows_ND) <= rows_ND.shape[1] else np.linalg.qr(centred_ND, mode="r")


def _distance(mu_a: np.ndarray, a_RD: np.ndarray, mu_b: np.ndarray, b_RD: np.ndarray) -> float:
    root_trace = np.linalg.svd(a_RD @ b_RD.T, compute_uv=False).sum()
    value = np.sum((mu_a - mu_b) ** 2) + np.sum(a_RD**2) + np.sum(b_RD**2) - 2 * root_trace
    return max(float(value), 0.0)  # rounding leaves -1e-15 of equal sets


def kernel_distance(features_a_ND: Rows, features_b_MD: Rows) -> float:
    """KID: the unbiased squared maximum mean discrepancy with the kernel `(x.y / D + 1)^3`.

    `sum_{i!=j} k(a_i, a_j) / (N (N - 1)) + sum_{i!=j} k(b_i, b_j) / (M (M - 1)) - 2 sum_{ij}
    k(a_i, b_j) / (N M)` (Bińkowski et al. 2018, arXiv 1801.01401, section 4; Gretton et al. 2012,
    eq. 3). It takes all rows at once instead of drawing subsets, which gives the smallest variance;
    the sets may differ in size. It may be slightly below 0 for sets of one distribution. Kernels
    are summed in chunks; time grows with (N + M)^2 D.

    Raises:
        ValueError: fewer than 2 rows, a row that is not finite, different widths.
    """
    a_ND, b_MD = checked_pair(features_a_ND, features_b_MD)
    return _kernel_to(b_MD)(a_ND)


def _kernel_to(b_MD: np.ndarray) -> Distance:
    """The distance to a set whose own kernels are summed once."""
    within_b = _mean_off_diagonal(b_MD)

    def distance(a_ND: np.ndarray) -> float:
        between = _kernel_sum(a_ND, b_MD) / (len(a_ND) * len(b_MD))
        return float(_mean_off_diagonal(a_ND) + within_b - 2 * between)

    return distance


def _mean_off_diagonal(rows_ND: np.ndarray) -> float:
    diagonal_N = _kernel(np.sum(rows_ND**2, axis=1), rows_ND.shape[1])
    count = len(rows_ND)
    return (_kernel_sum(rows_ND, rows_ND) - diagonal_N.sum()) / (count * (count - 1))


def _kernel_sum(a_ND: np.ndarray, b_MD: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(a_ND), CHUNK_ROWS):
        products = a_ND[start : start + CHUNK_ROWS] @ b_MD.T
        total += _kernel(products, a_ND.shape[1]).sum()
    return total


def _kernel(products: np.ndarray, width: int) -> np.ndarray:
    base = products / width + 1.0
    return base * base * base  # numpy's ** 3 takes the time of ten products


def _measure_fid(sample: Sample) -> Score | None:
    score = _measure(sample, _frechet_to)
    if score is not None:
        sizes = len(sample.general), len(sample.yardstick.references_MD)
        warning = FrechetDistance(score.value, *sizes, sample.features_ND.shape[1]).warning
        score = replace(score, warnings=[warning] if warning else [])
    return score


def _measure(sample: Sample, distance_to: Callable[[np.ndarray], Distance]) -> Score | None:
    """The general pictures against the references; None without either."""
    if sample.yardstick.references_MD is None or not sample.general:
        return None
    rows_ND, references_MD = checked_pair(sample.features_ND, sample.yardstick.references_MD)
    distance, interval = distance_to(references_MD), None
    if sample.num_fid_bootstrap:
        interval = interval_of_statistic(distance, rows_ND, sample.num_fid_bootstrap, sample.seed)
    return Score(distance(rows_ND), interval, sample.yardstick.words)


METRICS = (
    Metric("fid", "FID ↓", _measure_fid, better="low", place=4),
    Metric(
        "kid",
        "KID × 1000 ↓",
        lambda sample: _measure(sample, _kernel_to),
        scale=1000,
        better="low",
        place=5,
    ),
)
