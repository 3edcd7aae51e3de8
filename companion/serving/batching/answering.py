"""Asking the model about a batch so that one bad row fails alone.

A row that the model chokes on makes the whole call fail, and the healthy rows beside it with it.
Which row it was the exception rarely says, so the batch is halved and each half asked again, until
the culprit stands alone (bisection; Zeller's *delta debugging* is its relative). One bad row in n
costs about 2·log₂ n calls more, where asking row by row would cost n; and if every row is bad,
2n - 1 calls in all, less than twice what the same rows would cost without batching.

Only errors that speak of a value are looked for like this. A model that cannot be reached, or has
no memory left, is not asked again a hundred times: its error goes to all rows at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.serving.batching.errors import BatchResultError, PredictorExitError

Predict = Callable[[NDArray[Any]], Any]
"""Takes rows × features, gives an array or sequence with one entry a row."""

ROW_ERRORS: tuple[type[Exception], ...] = (ArithmeticError, LookupError, TypeError, ValueError)
"""What Python raises where a value is wrong."""


@dataclass(frozen=True)
class Failed:
    """In the place of a result: the row's error."""

    error: Exception


def answers(
    predict: Predict,
    rows: Sequence[NDArray[Any]],
    row_errors: tuple[type[Exception], ...] = ROW_ERRORS,
) -> list[Any]:
    """One entry for each of `rows`, in their order: the model's result, or `Failed`.

    The rows go through `predict` stacked. Raises nothing: every error is somebody's result.
    """
    try:
        results = predict(np.stack(rows))
    except row_errors as error:
        if len(rows) == 1:
            return [Failed(error)]
        middle = len(rows) // 2
        return [
            *answers(predict, rows[:middle], row_errors),
            *answers(predict, rows[middle:], row_errors),
        ]
    except StopIteration as error:
        return _all(rows, PredictorExitError(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the callers have to hear it
        return _all(rows, error)
    except BaseException as error:  # noqa: BLE001 - in this thread it would be lost
        return _all(rows, PredictorExitError(error))
    return _one_each(rows, results)


def _one_each(rows: Sequence[object], results: Any) -> list[Any]:
    # An array of any library becomes NumPy's: iterating over a DataFrame would give column names.
    entries = np.asarray(results) if hasattr(results, "__array__") else results
    try:
        got = len(entries)
    except TypeError:
        return _all(rows, BatchResultError(len(rows), None))
    if got != len(rows):
        return _all(rows, BatchResultError(len(rows), got))
    return list(entries)


def _all(rows: Sequence[object], error: Exception) -> list[Any]:
    return [Failed(error)] * len(rows)
