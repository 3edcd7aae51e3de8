"""A fitted model as one ONNX file, proven to say what the model says, or no file.

The file has one input, `features` (rows × features, float32), one output, `probabilities` (rows ×
2, float32, legitimate and fraud), takes any number of rows at a time, carries the names of its
features, and needs no second file. How the steps are written down is in `steps`, why the last
digit matters in `trees`, what the proof consists of in `parity`.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from companion.models.onnx.errors import InvalidRowsError, UnsupportedModelError
from companion.models.onnx.graph import Graph
from companion.models.onnx.model import FEATURES_KEY, OnnxModel
from companion.models.onnx.parity import prove_parity
from companion.models.onnx.rows import as_matrix
from companion.models.onnx.steps import both, score


def export_onnx(model: Any, X: object, *, tolerance: float = 1e-6) -> bytes:
    """`model` as the bytes of an ONNX file for `OnnxModel`, after a proof on the rows `X`.

    `model` is a fitted classifier of 0 and 1: a random forest, histogram gradient boosting,
    logistic regression or the network of `make_net`, each of them alone, in a pipeline after
    `Float32` and `StandardScaler`, or calibrated (`CalibratedClassifierCV`, sigmoid or isotonic).
    `X` (rows × features, at least one row) should look like what the model will be asked. The
    names of the features are those that the model was trained with, else those of `X`, else f0,
    f1, …. `tolerance` is the largest difference of two probabilities that is let through.

    Raises `UnsupportedModelError` for a model with other parts, `ParityError` where the file and
    the model differ, `NotProbabilitiesError` for a model that does not give probabilities, and
    what `OnnxModel.predict_proba` raises for `X`.
    """
    _check_classes(model)
    features = _names(model, X)
    given = as_matrix(X, features)
    if len(given) == 0:
        raise InvalidRowsError("a proof needs at least one row")
    graph = Graph(len(features))
    output = both(graph, score(model, graph, graph.input()))
    data = graph.finish(output, {FEATURES_KEY: json.dumps(features)})
    prove_parity(
        lambda rows: _predictions(model, rows, features),
        OnnxModel(data).predict_proba,
        given,
        graph.boundaries,
        features,
        tolerance=tolerance,
    )
    return data


def _check_classes(model: Any) -> None:
    try:
        classes = np.asarray(model.classes_).tolist()
    except AttributeError as error:
        raise UnsupportedModelError(
            type(model).__name__, "it is no classifier that has been fitted"
        ) from error
    if classes != [0, 1]:
        raise UnsupportedModelError(type(model).__name__, f"its classes are {classes}, not 0 and 1")


def _names(model: Any, X: object) -> list[str]:
    trained_with = getattr(model, "feature_names_in_", None)
    if trained_with is not None:
        return [str(name) for name in trained_with]
    if isinstance(X, pd.DataFrame):
        return [str(name) for name in X.columns]
    shape = np.asarray(X).shape
    return [f"f{column}" for column in range(shape[1] if len(shape) == 2 else 0)]


def _predictions(model: Any, rows: NDArray[Any], features: Sequence[str]) -> NDArray[Any]:
    if len(rows) == 0:
        return np.empty((0, 2))
    named = hasattr(model, "feature_names_in_")
    table = pd.DataFrame(rows, columns=list(features)) if named else rows
    with warnings.catch_warnings(), threadpool_limits(1):
        # A step within may have been fitted on a table and be asked with a matrix, or the reverse.
        warnings.filterwarnings("ignore", message="X (does not have|has) .*feature names")
        probabilities: NDArray[Any] = model.predict_proba(table)
    return probabilities
