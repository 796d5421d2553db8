"""Tables of features and columns of scores, checked once at the start of a metric."""

import numpy as np
import torch
from torch import Tensor

# N rows, D width

Rows = Tensor | np.ndarray


def checked_rows(features_ND: Rows, what: str, min_rows: int = 2) -> np.ndarray:
    """A table of features as (N, D) fp64, on the CPU; `what` names it in errors.

    Raises:
        ValueError: it is not a table, has too few rows or no columns, or holds a NaN or an
        infinity.
    """
    rows_ND = _double(features_ND)
    if rows_ND.ndim != 2 or rows_ND.shape[1] == 0:
        raise ValueError(f"{what} have shape {rows_ND.shape}; rows of features (N, D) are needed")
    if len(rows_ND) < min_rows:
        raise ValueError(f"{what} have {len(rows_ND)} rows; at least {min_rows} are needed")
    _refuse_non_finite(np.isfinite(rows_ND).all(axis=1), what)
    return rows_ND


def checked_pair(features_a_ND: Rows, features_b_MD: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Two tables of features of one width, as fp64.

    Raises:
        ValueError: a table is refused by `checked_rows`, or their widths differ.
    """
    a_ND = checked_rows(features_a_ND, "features a")
    b_MD = checked_rows(features_b_MD, "features b")
    width_a, width_b = a_ND.shape[1], b_MD.shape[1]
    if width_a != width_b:
        raise ValueError(
            f"features of widths {width_a} and {width_b} are of different extractors or layers: "
            "take both sets from the same one"
        )
    return a_ND, b_MD


def checked_column(values_N: Rows, what: str) -> np.ndarray:
    """A score a row as (N,) fp64.

    Raises:
        ValueError: it is not a column, is empty, or holds a NaN or an infinity.
    """
    column_N = _double(values_N)
    if column_N.ndim != 1:
        raise ValueError(f"{what} have shape {column_N.shape}; one value a row (N,) is needed")
    if not len(column_N):
        raise ValueError(f"{what} are empty: there is nothing to average")
    _refuse_non_finite(np.isfinite(column_N), what)
    return column_N


def _double(values: Rows) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _refuse_non_finite(is_finite_N: np.ndarray, what: str) -> None:
    if not is_finite_N.all():
        first = int(np.flatnonzero(~is_finite_N)[0])
        raise ValueError(
            f"row {first} of {what} is not finite ({int((~is_finite_N).sum())} of "
            f"{len(is_finite_N)} are not): look for a NaN in the model's output"
        )
