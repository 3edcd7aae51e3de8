"""Fraud labels as 0 and 1, or a refusal that says what else was found.

A loss function takes whatever indexes a tensor. Labels of -1 and 1 end in "Target -1 is out of
bounds" deep inside a training loop, text ends in a TypeError, and a fraction is cut off in
silence. Better to ask at the door.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


class LabelError(ValueError):
    """`y` is not a column of 0 and 1 with both present; `found` holds some of its distinct
    values."""

    def __init__(self, problem: str, found: tuple[Any, ...] = ()) -> None:
        super().__init__(f"y must hold 0 (legitimate) and 1 (fraud): {problem}")
        self.found = found


def as_labels(y: ArrayLike) -> NDArray[np.int64]:
    """`y` (rows; truth values, whole numbers, or floats that are whole) as int64 0 and 1.

    Raises `LabelError` for missing values, text, fractions, other numbers than 0 and 1 (-1 and 1
    among them), more than one column, no rows, and for one class only, of which nothing can be
    learned.
    """
    values = np.asarray(y)
    if values.ndim != 1:
        raise LabelError(f"it has the shape {values.shape}, not one value a row")
    if pd.isna(values).any():
        raise LabelError(f"{int(pd.isna(values).sum())} of {len(values)} are missing")
    found = tuple(pd.unique(values)[:5].tolist())
    if not all(isinstance(value, bool | int | float) for value in found):
        raise LabelError(f"it holds {_listed(found)}; map them to 0 and 1 first", found)
    numbers = values.astype("float64")
    if not np.isin(numbers, (0.0, 1.0)).all():
        hint = "; turn -1 and 1 into (y + 1) // 2" if set(found) == {-1, 1} else ""
        raise LabelError(f"it holds {_listed(found)}{hint}", found)
    if len(found) < 2:
        raise LabelError(f"it holds {_listed(found) or 'nothing'} only", found)
    return numbers.astype("int64")


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, values))
