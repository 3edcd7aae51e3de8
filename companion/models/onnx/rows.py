"""What a served model is given, as float32 in the order of training, or a refusal.

A matrix has no names, so a model that is given one trusts the caller's order; a DataFrame has
names, and these decide. Sculley et al. ("Hidden Technical Debt in Machine Learning Systems", NIPS
2015) call it an undeclared consumer's trap: a column moved upstream, and the model goes on
answering, wrongly, without an error.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.models.onnx.errors import FeatureMismatchError, InvalidRowsError

_NUMBERS = "biuf"


def as_matrix(X: object, features: Sequence[str]) -> NDArray[Any]:
    """`X` (rows × features) as a matrix of numbers, its columns in the order of `features`.

    A DataFrame's columns may stand in any order, and are put in this one by name. Anything else is
    taken to be in this order.

    Raises `FeatureMismatchError` for a DataFrame with other columns, `InvalidRowsError` for another
    width, for more or fewer than two dimensions, and for what is no number (text, dates).
    """
    if isinstance(X, pd.DataFrame):
        return _frame_matrix(X, features)
    matrix = np.asarray(X)
    if matrix.ndim != 2 or matrix.shape[1] != len(features):
        hint = "; a single row is [[…]], not […]" if matrix.ndim == 1 else ""
        raise InvalidRowsError(
            f"the shape is {matrix.shape} instead of (rows, {len(features)}){hint}"
        )
    if matrix.dtype.kind not in _NUMBERS:
        raise InvalidRowsError(f"the values are {matrix.dtype}, not numbers")
    return matrix


def as_float32(matrix: NDArray[Any], features: Sequence[str]) -> NDArray[np.float32]:
    """`matrix` rounded to float32, row after row in memory; raises `InvalidRowsError` for what is
    missing, infinite, or too large for float32."""
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(matrix, dtype=np.float32)
    usable = np.isfinite(rounded)
    if usable.all():
        return rounded
    row = int(np.flatnonzero(~usable.all(axis=1))[0])
    columns = [features[column] for column in np.flatnonzero(~usable.all(axis=0)).tolist()]
    first = int(np.flatnonzero(~usable[row])[0])
    value = matrix[row, first]
    what = "is missing" if np.isnan(value) else f"is {value}, which float32 cannot hold"
    raise InvalidRowsError(
        f"row {row}: {features[first]} {what} ({int((~usable).sum())} such values in "
        f"{', '.join(columns)})",
        columns,
        row,
    )


def _frame_matrix(X: pd.DataFrame, features: Sequence[str]) -> NDArray[Any]:
    if list(X.columns) != list(features):
        X = _in_order(X, features)
    kinds = [dtype.kind for dtype in X.dtypes]
    wrong = [name for name, kind in zip(features, kinds, strict=True) if kind not in _NUMBERS]
    if wrong:
        named = ", ".join(f"{name} ({X[name].dtype})" for name in wrong)
        raise InvalidRowsError(f"these columns hold no numbers: {named}", wrong)
    matrix: NDArray[np.float64] = X.to_numpy(dtype=np.float64, na_value=np.nan)
    return matrix


def _in_order(X: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    known, found = set(features), Counter(X.columns)
    missing = [name for name in features if name not in found]
    unexpected = [str(name) for name in found if name not in known]
    repeated = [str(name) for name, times in found.items() if times > 1 and name in known]
    if missing or unexpected or repeated:
        raise FeatureMismatchError(missing, unexpected, repeated)
    return X[list(features)]
