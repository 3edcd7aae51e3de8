"""How each kind of step says in ONNX exactly what it says in scikit-learn.

`transform` and `score` are generic functions over the type of the step, so a kind of step is one
registered function, and a kind that is missing is named by the error. They follow the installed
scikit-learn 1.9 operation for operation, in its number formats, since the last digit of a scaled
value decides which branch of a tree a row takes.

skl2onnx, the usual converter, was tried first: with scikit-learn 1.9 it fails on histogram
gradient boosting, it knows no network of skorch's, and its forests compute in float32.
"""

from dataclasses import dataclass
from functools import partial, reduce, singledispatch
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from companion.models.network import Float32, FraudMLP, FraudNet
from companion.models.onnx.errors import UnsupportedModelError
from companion.models.onnx.graph import Graph, Value
from companion.models.onnx.trees import add_average, add_sum, boosted_trees, forest_trees


@dataclass(frozen=True)
class Score:
    """What a classifier answers with: `name` in the number format `format`.

    "log-odds" and "fraud" (a probability) are rows × 1; "both" is rows × 2, legitimate and fraud.
    A classifier that has a decision function answers with that, as calibration reads it.
    """

    kind: Literal["log-odds", "fraud", "both"]
    name: str
    format: str


@singledispatch
def transform(step: object, graph: Graph, value: Value) -> Value:
    """`value` after the fitted transformer `step`; raises `UnsupportedModelError`."""
    raise UnsupportedModelError(type(step).__name__, "no such transformer is known here")


@singledispatch
def score(model: object, graph: Graph, value: Value) -> Score:
    """What the fitted classifier `model` says of `value`; raises `UnsupportedModelError`."""
    raise UnsupportedModelError(type(model).__name__, "no such classifier is known here")


def fraud(graph: Graph, answer: Score) -> tuple[str, str]:
    """The probability of fraud, rows × 1, as (name, format)."""
    if answer.kind == "log-odds":
        return graph.node("Sigmoid", answer.name), answer.format
    if answer.kind == "both":
        second = graph.node("Gather", answer.name, _index(graph, [1]), axis=1)
        return second, answer.format
    return answer.name, answer.format


def both(graph: Graph, answer: Score) -> str:
    """The probabilities of legitimate and fraud, rows × 2, float32."""
    if answer.kind == "both":
        return answer.name
    name, format = fraud(graph, answer)
    # One product instead of a subtraction and a concatenation: (1 - p, p) = p × (-1, 1) + (1, 0).
    pair = graph.node(
        "Gemm", name, graph.constant([[-1, 1]], format), graph.constant([1, 0], format)
    )
    return _read(graph, Score("both", pair, format), "float32")


@transform.register
def _(step: Float32, graph: Graph, value: Value) -> Value:
    return Value("float32", {"float32": graph.read(value, "float32")}, value.unscale)


@transform.register
def _(step: StandardScaler, graph: Graph, value: Value) -> Value:
    name = graph.read(value, value.format)
    mean = np.zeros(graph.n_features) if step.mean_ is None else step.mean_
    scale = np.ones(graph.n_features) if step.scale_ is None else step.scale_
    if step.with_mean:
        name = graph.node("Sub", name, graph.constant(mean, value.format))
    if step.with_std:
        name = graph.node("Div", name, graph.constant(scale, value.format))

    def unscale(columns: NDArray[np.int64], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        centre = mean[columns] if step.with_mean else 0.0
        return value.unscale(columns, numbers * scale[columns] + centre)

    return Value(value.format, {value.format: name}, unscale)


@score.register
def _(model: Pipeline, graph: Graph, value: Value) -> Score:
    *before, (_, last) = model.steps
    for _, step in before:
        # A sampler (imbalanced-learn) works while training only.
        if step is None or step == "passthrough" or hasattr(step, "fit_resample"):
            continue
        value = transform(step, graph, value)
    return score(last, graph, value)


@score.register
def _(model: FrozenEstimator, graph: Graph, value: Value) -> Score:
    return score(model.estimator, graph, value)


@score.register
def _(model: RandomForestClassifier, graph: Graph, value: Value) -> Score:
    return Score("fraud", add_average(graph, value, forest_trees(model)), "float64")


@score.register
def _(model: HistGradientBoostingClassifier, graph: Graph, value: Value) -> Score:
    total = add_sum(graph, value, boosted_trees(model))
    base = graph.constant(model._baseline_prediction, "float64")
    return Score("log-odds", graph.node("Add", total, base), "float64")


@score.register
def _(model: LogisticRegression, graph: Graph, value: Value) -> Score:
    format = np.result_type(np.dtype(value.format), model.coef_.dtype).name
    log_odds = graph.node(
        "Gemm",
        graph.read(value, format),
        graph.constant(model.coef_.T, format),
        graph.constant(model.intercept_, format),
    )
    return Score("log-odds", log_odds, format)


@score.register
def _(model: FraudNet, graph: Graph, value: Value) -> Score:
    # Written out and not traced by torch.onnx: three kinds of node need no tracer, which takes
    # seconds, warns, and by default puts the weights in a second file.
    module = model.module_
    if not isinstance(module, FraudMLP):
        raise UnsupportedModelError(type(module).__name__, "only FraudMLP is known here")
    name = graph.read(value, "float32")
    for layer in module.layers:
        if isinstance(layer, torch.nn.Linear):
            weights, bias = (part.detach().cpu().numpy() for part in (layer.weight, layer.bias))
            name = graph.node(
                "Gemm",
                name,
                graph.constant(weights.T, "float32"),
                graph.constant(bias, "float32"),
            )
        elif isinstance(layer, torch.nn.ReLU):
            name = graph.node("Relu", name)
        elif not isinstance(layer, torch.nn.Dropout):  # which predicts as if it were not there
            raise UnsupportedModelError(type(layer).__name__, "no such layer is known here")
    if isinstance(model.criterion_, torch.nn.CrossEntropyLoss):
        name = graph.node("Softmax", name, axis=1)
    return Score("both", name, "float32")


@score.register
def _(model: CalibratedClassifierCV, graph: Graph, value: Value) -> Score:
    calibrated = []
    for fold in model.calibrated_classifiers_:
        answer = score(fold.estimator, graph, value)
        if answer.kind == "both":
            name, format = fraud(graph, answer)
            answer = Score("fraud", name, format)
        calibrated.append(_calibrated(graph, answer, fold.method, fold.calibrators[0]))
    # onnxruntime has no Mean in float64.
    total = reduce(partial(graph.node, "Add"), calibrated)
    folds = graph.constant(len(calibrated), "float64")
    return Score("fraud", graph.node("Div", total, folds), "float64")


def _calibrated(graph: Graph, answer: Score, method: str, calibrator: Any) -> str:
    if method == "sigmoid":
        # Platt: 1 / (1 + exp(a × s + b)).
        return graph.node("Sigmoid", _line(graph, answer, -calibrator.a_, -calibrator.b_))
    if method == "isotonic":
        return _interpolated(graph, answer, calibrator)
    raise UnsupportedModelError(
        "CalibratedClassifierCV", f"the method {method!r} is not known here"
    )


def _line(graph: Graph, answer: Score, slope: float, offset: float) -> str:
    return graph.node(
        "Gemm",
        _read(graph, answer, "float64"),
        graph.constant([[slope]], "float64"),
        graph.constant([offset], "float64"),
    )


def _interpolated(graph: Graph, answer: Score, isotonic: IsotonicRegression) -> str:
    x, y = (
        np.asarray(knots, dtype=np.float64)
        for knots in (isotonic.X_thresholds_, isotonic.y_thresholds_)
    )
    if len(x) == 1:
        x, y = np.array([x[0], x[0] + 1.0]), np.repeat(y, 2)
    # scikit-learn takes the score to the format of the knots, and interpolates in float64.
    rounded = _read(graph, answer, isotonic.X_thresholds_.dtype.name)
    number = graph.cast(rounded, "float64")
    inside = graph.node(
        "Clip", number, graph.constant(x[0], "float64"), graph.constant(x[-1], "float64")
    )
    # Which piece: as many as there are inner knots below the score (rows × knots, then rows × 1).
    below = graph.node("Less", graph.constant(x[np.newaxis, 1:-1], "float64"), inside)
    counts = graph.cast(below, "int64")
    piece = graph.node("ReduceSum", counts, _index(graph, [1]), keepdims=1)
    start, height, slope = (
        graph.node("Gather", graph.constant(column, "float64"), piece)
        for column in (x[:-1], y[:-1], np.diff(y) / np.diff(x))
    )
    rise = graph.node("Mul", slope, graph.node("Sub", inside, start))
    return graph.node("Add", rise, height)


def _read(graph: Graph, answer: Score, format: str) -> str:
    return answer.name if answer.format == format else graph.cast(answer.name, format)


def _index(graph: Graph, positions: list[int]) -> str:
    return graph.constant(positions, "int64")
