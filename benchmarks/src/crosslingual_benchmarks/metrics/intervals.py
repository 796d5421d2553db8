"""95 % bootstrap intervals: of a mean over rows, over clusters of rows, and of any statistic.

The percentile interval (Efron 1979; Efron & Tibshirani 1993, An Introduction to the Bootstrap,
chapter 13): the statistic of many tables of as many rows, drawn from the measured ones with
replacement, and the 2.5th and 97.5th of a hundred of them. It says how far the number would move
with other prompts; not with another seed of training. Rows that are all alike, a single row
included, give an interval of no width: read the count beside it.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from crosslingual_benchmarks.metrics.rows import Rows, checked_column, checked_rows

# N rows, C clusters, S resamplings

Interval = list[float]  # [low, high], as a result line holds it

BOUNDS = (0.025, 0.975)
NUM_DRAWN = 4_000_000  # row numbers that exist at a time


def interval_of_mean(values_N: Rows, num_samples: int = 1000, seed: int = 0) -> Interval:
    """The interval of the mean of independent rows, such as one picture a prompt.

    Args:
        values_N: a score a row; of yes and no, the share of yes.
        num_samples: resamplings.
        seed: of the drawing.

    Raises:
        ValueError: no rows, or a row that is not finite.
    """
    values_N = checked_column(values_N, "values")
    return _interval_of_ratio(values_N, np.ones(len(values_N)), num_samples, seed)


def interval_of_cluster_mean(
    values_N: Rows, clusters_N: Sequence[Hashable], num_samples: int = 1000, seed: int = 0
) -> Interval:
    """The interval of the mean over all rows where rows of a cluster are not independent: several
    pictures of a prompt, or one content in several languages.

    Clusters are drawn whole (Davison & Hinkley 1997, Bootstrap Methods, section 3.8); drawing their
    rows apart would give too narrow an interval.

    Args:
        values_N: a score a row.
        clusters_N: what each row belongs to.
        num_samples: resamplings.
        seed: of the drawing.

    Raises:
        ValueError: no rows, a row that is not finite, or not one cluster a row.
    """
    values_N = checked_column(values_N, "values")
    if len(clusters_N) != len(values_N):
        raise ValueError(f"{len(values_N)} values and {len(clusters_N)} clusters: give one a value")
    place_of: dict[Hashable, int] = {}
    places_N = np.array([place_of.setdefault(name, len(place_of)) for name in clusters_N])
    sums_C, counts_C = np.bincount(places_N, values_N), np.bincount(places_N).astype(float)
    return _interval_of_ratio(sums_C, counts_C, num_samples, seed)


def _interval_of_ratio(
    sums_C: np.ndarray, counts_C: np.ndarray, num_samples: int, seed: int
) -> Interval:
    _check_samples(num_samples)
    draw = np.random.default_rng(seed)
    at_once = max(1, NUM_DRAWN // len(sums_C))
    found: list[np.ndarray] = []
    for start in range(0, num_samples, at_once):
        shape = (min(at_once, num_samples - start), len(sums_C))
        drawn_SC = draw.integers(len(sums_C), size=shape)
        found.append(sums_C[drawn_SC].sum(axis=1) / counts_C[drawn_SC].sum(axis=1))
    return np.quantile(np.concatenate(found), BOUNDS).tolist()


def interval_of_statistic(
    statistic: Callable[..., float],
    *tables: Rows,
    num_samples: int = 100,
    seed: int = 0,
    removes_bias: bool = True,
) -> Interval:
    """The interval of any statistic of rows, such as FID or KID of two tables of features.

    Args:
        statistic: of as many tables as are given, each (N, D) fp64; for FID,
            `lambda a, b: frechet_distance(a, b).value`.
        tables: each is drawn from apart. A reference that stays as it is belongs in `statistic`.
        num_samples: resamplings, each a call.
        seed: of the drawing.
        removes_bias: shifts the interval by what the resamplings' mean lies off the measured
            statistic (the bootstrap's estimate of bias, Efron & Tibshirani 1993, section 10.2).
            FID and KID need it: a drawn table holds some rows twice, which puts both distances too
            high. In a trial with 150 rows of 8 numbers the plain percentiles held the expected FID
            in 43 % of repetitions and KID in 55 %, the shifted ones in 99 % and 98 %.

    Raises:
        ValueError: no rows, a row that is not finite, or a statistic that is not.
    """
    _check_samples(num_samples)
    if not tables:
        raise ValueError("no tables are given: a statistic needs rows")
    checked = [checked_rows(rows, f"table {i}", min_rows=1) for i, rows in enumerate(tables)]
    measured = float(statistic(*checked))
    draw = np.random.default_rng(seed)
    found = np.array(
        [
            statistic(*(rows[draw.integers(len(rows), size=len(rows))] for rows in checked))
            for _ in range(num_samples)
        ]
    )
    num_wrong = int((~np.isfinite([measured, *found])).sum())
    if num_wrong:
        raise ValueError(f"{num_wrong} of {num_samples + 1} values of the statistic are not finite")
    shift = found.mean() - measured if removes_bias else 0.0
    return (np.quantile(found, BOUNDS) - shift).tolist()


def _check_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: an interval needs resamplings, say 1000")
