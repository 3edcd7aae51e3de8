"""Rows on their way in: a frame or an array becomes numbers with names, and back for the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion.models.explanations.errors import InputError
from companion.models.explanations.explanation import Floats


def numbers(X: pd.DataFrame | ArrayLike) -> Floats:
    """`X` as rows × features of float64, a copy; missing values stay.

    Raises `InputError` for text and other columns that hold no numbers, for anything but two
    dimensions (one row is `X.iloc[[0]]` or `X[[0]]`), and for no rows or columns.
    """
    if isinstance(X, pd.DataFrame):
        text = [name for name, dtype in X.dtypes.items() if not _is_number(dtype)]
        if text:
            raise InputError("these columns hold no numbers; encode them first", text)
        array = X.to_numpy(dtype="float64", na_value=np.nan, copy=True)
    else:
        try:
            array = np.array(X, dtype="float64")
        except (TypeError, ValueError) as error:
            raise InputError(f"X is no table of numbers ({error})") from error
    if array.ndim != 2:
        raise InputError(
            f"X has the shape {array.shape}, not rows × features; one row is X[[0]] or X.iloc[[0]]"
        )
    if 0 in array.shape:
        raise InputError(f"X has the shape {array.shape}: there is nothing to explain")
    return array


def check_names(X: object, model: Any) -> None:
    """Raise `InputError` for a frame whose columns are not those that `model` was fitted to.

    In another order they would be too: rows reach the model by position.
    """
    known = getattr(model, "feature_names_in_", None)
    if known is None or not isinstance(X, pd.DataFrame) or list(X.columns) == list(known):
        return
    missing = [name for name in known if name not in X.columns]
    extra = [name for name in X.columns if name not in set(known)]
    if missing:
        raise InputError("columns that the model was fitted to are missing", missing)
    if extra:
        raise InputError("the model was not fitted to these columns", extra)
    raise InputError(
        "the columns stand in another order than the model was fitted to", list(X.columns)
    )


def feature_names(X: object, model: Any, width: int) -> tuple[str, ...]:
    """The names of the columns: the frame's, else the model's own, else `feature 0` and so on."""
    if isinstance(X, pd.DataFrame):
        return tuple(map(str, X.columns))
    known = getattr(model, "feature_names_in_", None)
    if known is not None and len(known) == width:
        return tuple(map(str, known))
    return tuple(f"feature {column}" for column in range(width))


def as_fitted(model: Any, array: Floats) -> Any:
    """`array` as `model` was fitted to it: a frame with its names, or an array."""
    known = getattr(model, "feature_names_in_", None)
    if known is None or len(known) != array.shape[1]:
        return array
    return pd.DataFrame(array, columns=known)


def _is_number(dtype: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(dtype))
