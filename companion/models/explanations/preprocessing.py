"""Which feature each transformed column is made of, found by trying.

A contribution belongs to a column that the *model* sees; the person who reads it knows the column
that went *into* the pipeline. Where each transformed column comes from one feature (a scaler, a
cast, a column transformer that reorders) the two are the same but for a relabelling. Reading that
off each transformer's class would need a list of classes and believe each of them; instead, one
feature at a time is changed in some rows, and what moves is looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.models.explanations.errors import PreprocessingError
from companion.models.explanations.explanation import Floats
from companion.models.explanations.tables import as_fitted

_PROBED_ROWS = 24


def transformed(steps: Any, array: Floats) -> Floats:
    """`array` (rows × features) as the model behind `steps` sees it, as dense float64."""
    table = steps.transform(as_fitted(steps, array))
    dense = table.toarray() if hasattr(table, "toarray") else table
    return np.asarray(dense, dtype="float64")


def sources(steps: Any, rows: Floats) -> NDArray[np.int64]:
    """For each transformed column the feature that it is made of; -1: of none, it never moved.

    `rows` (rows × features) are taken for probes: each feature in turn takes the values of other
    rows, and where those are all equal, its value + 1.

    Raises `PreprocessingError` for a column made of several features, and where `steps` refuse a
    probe.
    """
    probes = rows[:: max(1, len(rows) // _PROBED_ROWS)][:_PROBED_ROWS]
    n, width = probes.shape
    stacked = np.tile(probes, (width + 1, 1))
    for feature in range(width):
        other = np.roll(probes[:, feature], 1)
        same = (other == probes[:, feature]).all()
        block = slice((feature + 1) * n, (feature + 2) * n)
        stacked[block, feature] = probes[:, feature] + 1 if same else other
    try:
        with np.errstate(all="ignore"):
            outcome = transformed(steps, stacked)
    except ValueError as error:
        raise PreprocessingError(f"it refuses rows with one value changed ({error})") from error
    blocks = outcome.reshape(width + 1, n, -1)
    moved = ~np.isclose(blocks[1:], blocks[0], rtol=1e-9, atol=0.0, equal_nan=True).all(axis=1)
    mixed = np.flatnonzero(moved.sum(axis=0) > 1)
    if mixed.size:
        several = np.flatnonzero(moved[:, mixed[0]])
        raise PreprocessingError(
            f"column {mixed[0]} is made of the features {', '.join(map(str, several))}",
            mixed.tolist(),
        )
    return np.where(moved.any(axis=0), moved.argmax(axis=0), -1)


def refuse_shared(source: NDArray[np.int64]) -> None:
    """Raise `PreprocessingError` where two columns are made of one feature.

    The Shapley value of a feature is not the sum of its columns' values: they would count as
    players who can join one without the other. (It is the sum where the model adds them up, as a
    linear one does.)
    """
    feature, times = np.unique(source[source >= 0], return_counts=True)
    if (times > 1).any():
        shared = int(feature[times > 1][0])
        columns = np.flatnonzero(source == shared).tolist()
        raise PreprocessingError(f"feature {shared} becomes {len(columns)} columns", columns)


def in_features(values: Floats, source: NDArray[np.int64], width: int) -> Floats:
    """Contributions of transformed columns (rows × columns) as rows × `width` features."""
    gathered = np.zeros((len(values), width))
    for column, feature in enumerate(source):
        if feature >= 0:
            gathered[:, feature] += values[:, column]
    return gathered
