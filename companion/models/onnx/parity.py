"""The proof that an ONNX file says what its model says, on the rows where it is hardest.

Rows at random rarely meet the place where two implementations differ: a tree's threshold, at which
a number rounded the other way takes the other branch. So besides the given rows the proof takes
copies of them with one feature moved onto a threshold, and one float32 below and above it:
boundary value analysis (Myers, *The Art of Software Testing*, 1979). It compares

1. the given rows and the boundary rows, as one batch, with the model on the same float32 numbers;
2. some of them one by one, with the batch: a service asks for single rows;
3. the given rows with the model on the numbers as they were given, which may have more digits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.models.onnx.errors import NotProbabilitiesError, ParityError
from companion.models.onnx.rows import as_float32

Predict = Callable[[NDArray[Any]], NDArray[Any]]

_MOST_BOUNDARIES = 1_000
_SINGLE_ROWS = 16
_SUM_TOLERANCE = 1e-6

_BOTH_PATHS = "this is a defect of the export"
_TOO_MANY_DIGITS = (
    "the model reads more digits than float32 has: begin its pipeline with Float32() and train "
    "again, so that it decides on the numbers that it will be served"
)


def prove_parity(
    model: Predict,
    exported: Predict,
    given: NDArray[Any],
    boundaries: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    features: Sequence[str],
    *,
    tolerance: float,
) -> float:
    """Compare `model` and `exported` and give the largest difference found.

    Both take rows × features and give rows × 2; `model` is asked in float64 (and in the format of
    `given`), `exported` in float32. `boundaries` holds (columns, values) at which the model's
    answer may jump.

    Raises `ParityError` where a difference exceeds `tolerance`, `NotProbabilitiesError` where
    either gives no probabilities, `InvalidRowsError` for rows that are no finite numbers.
    """
    rows = as_float32(given, features)
    compared = []
    for origin, batch in (
        ("given rows", rows),
        ("rows at thresholds", boundary_rows(rows, boundaries)),
    ):
        expected, got = model(batch.astype(np.float64)), exported(batch)
        check_probabilities("the model", expected)
        check_probabilities("the exported file", got)
        compared.append(_largest(origin, batch, expected, got, features, tolerance, _BOTH_PATHS))
        picked = batch[:: max(1, len(batch) // _SINGLE_ROWS)]
        alone = [exported(row[np.newaxis])[0] for row in picked]
        together = exported(picked)
        compared.append(
            _largest(
                f"{origin}, one by one",
                picked,
                together,
                np.reshape(alone, together.shape),
                features,
                tolerance,
                _BOTH_PATHS,
            )
        )
    expected, got = model(given), exported(rows)
    origin = "rows in full precision"
    compared.append(_largest(origin, given, expected, got, features, tolerance, _TOO_MANY_DIGITS))
    return max(compared)


def boundary_rows(
    rows: NDArray[np.float32],
    boundaries: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> NDArray[np.float32]:
    """Copies of `rows`, each with one feature just below, at, or just above a boundary.

    Of very many boundaries an even selection is taken, 1,000 of all, ordered by feature and value.
    """
    if not boundaries:
        return rows[:0]
    pairs = np.concatenate([np.column_stack(pair) for pair in boundaries])
    pairs = np.unique(pairs, axis=0)
    if len(pairs) > _MOST_BOUNDARIES:
        pairs = pairs[np.linspace(0, len(pairs) - 1, _MOST_BOUNDARIES).astype(int)]
    columns, values = pairs[:, 0].astype(int), pairs[:, 1].astype(np.float32)
    below = np.nextafter(values, np.float32(-np.inf))
    above = np.nextafter(values, np.float32(np.inf))
    copies = np.resize(np.arange(len(rows)), len(pairs))
    found = []
    for moved in (below, values, above):
        batch = rows[copies]
        batch[np.arange(len(pairs)), columns] = moved
        found.append(batch)
    return np.concatenate(found)


def check_probabilities(source: str, pairs: NDArray[Any]) -> None:
    """Raise `NotProbabilitiesError` unless every row of `pairs` is two numbers from 0 to 1 that sum
    to 1."""
    sums_to_one = np.abs(pairs.sum(axis=1) - 1.0) <= _SUM_TOLERANCE
    proper = sums_to_one & ((pairs >= 0) & (pairs <= 1)).all(axis=1)
    if not proper.all():
        row = int(np.flatnonzero(~proper)[0])
        raise NotProbabilitiesError(source, row, pairs[row].tolist())


def _largest(
    origin: str,
    rows: NDArray[Any],
    expected: NDArray[Any],
    got: NDArray[Any],
    features: Sequence[str],
    tolerance: float,
    advice: str,
) -> float:
    if len(rows) == 0:
        return 0.0
    differences = np.abs(expected.astype(np.float64) - got).max(axis=1)
    worst = int(differences.argmax())
    if not differences[worst] <= tolerance:
        raise ParityError(
            origin,
            worst,
            dict(zip(features, rows[worst].tolist(), strict=True)),
            float(expected[worst, 1]),
            float(got[worst, 1]),
            difference=float(differences[worst]),
            tolerance=tolerance,
            advice=advice,
        )
    return float(differences[worst])
