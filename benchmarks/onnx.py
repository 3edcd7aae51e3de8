"""What a prediction costs through scikit-learn and through ONNX, side by side, in one run.

All are on one thread and are given float32 matrices, so neither pays for a DataFrame. Single rows
are different ones in turn, as a service sees them: the same row again and again would find its
branches predicted and its nodes cached. In each situation the baseline is `OnnxModel`. The export
is timed beside skl2onnx on the same forest, without the proof that `export_onnx` ends with.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from threadpoolctl import threadpool_limits

from companion.features import feature_matrix
from companion.instruments.benchmark import Row, side_by_side
from companion.models.families import make_boosting, make_forest
from companion.models.network import make_net, single_threaded
from companion.models.onnx.export import export_onnx
from companion.models.onnx.graph import Graph
from companion.models.onnx.model import OnnxModel
from companion.models.onnx.steps import both, score
from companion.transactions import simulate

TITLE = "Prediction through ONNX"

_MODELS: dict[str, Callable[[], Any]] = {
    "forest, 100 trees": lambda: make_forest(seed=0, trees=100),
    "forest, 100 trees of single rows": lambda: make_forest(seed=0, trees=100, min_samples_leaf=1),
    "boosted trees": lambda: make_boosting(seed=0),
    "net": lambda: make_net(seed=0, epochs=3),
}
_TARGETS = {("forest, 100 trees", "scikit-learn"): "at least 300 × OnnxModel"}
_SINGLE_ROWS = {"OnnxModel": 200, "scikit-learn": 4}
_BATCH = 10_000


def run() -> list[Row]:
    """Microseconds for one row, rows a second for a batch, seconds for an export."""
    X, y = feature_matrix(simulate(20_000, seed=10))
    rows = X.to_numpy(dtype=np.float32)
    found: list[Row] = []
    with threadpool_limits(1), single_threaded():
        for name, make in _MODELS.items():
            model = make().fit(rows, y)
            exported = OnnxModel(export_onnx(model, rows[:2_000]))
            found += _single(name, model, exported, rows)
            found += _batch(name, model, exported, rows)
            if name.startswith("forest"):
                found += _export(name, model["forest"], rows)
    return found


def _single(name: str, model: Any, exported: OnnxModel, rows: NDArray[np.float32]) -> list[Row]:
    singles = [rows[at : at + 1] for at in range(_SINGLE_ROWS["OnnxModel"])]

    def each(predict: Callable[[NDArray[np.float32]], object], count: int) -> Callable[[], None]:
        def call() -> None:
            for single in singles[:count]:
                predict(single)

        return call

    contenders = {"OnnxModel": exported.predict_proba, "scikit-learn": model.predict_proba}
    took = side_by_side(
        {who: each(predict, _SINGLE_ROWS[who]) for who, predict in contenders.items()}, rounds=31
    )
    seconds = {who: value / _SINGLE_ROWS[who] for who, value in took.items()}
    return [
        Row(
            f"{name}: one row",
            who,
            value * 1e6,
            "µs",
            value / seconds["OnnxModel"],
            _TARGETS.get((name, who), ""),
        )
        for who, value in seconds.items()
    ]


def _batch(name: str, model: Any, exported: OnnxModel, rows: NDArray[np.float32]) -> list[Row]:
    many = rows[:_BATCH]
    seconds = side_by_side(
        {
            "OnnxModel": lambda: exported.predict_proba(many),
            "scikit-learn": lambda: model.predict_proba(many),
        },
        rounds=7,
    )
    return [
        Row(
            f"{name}: {_BATCH:,} rows",
            contender,
            _BATCH / took,
            "rows/s",
            seconds["OnnxModel"] / took,
        )
        for contender, took in seconds.items()
    ]


def _export(name: str, model: RandomForestClassifier, rows: NDArray[np.float32]) -> list[Row]:
    width = rows.shape[1]

    def ours() -> bytes:
        graph = Graph(width)
        return graph.finish(both(graph, score(model, graph, graph.input())), {})

    def theirs() -> bytes:
        data: bytes = to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, width]))],
            options={"zipmap": False},
        ).SerializeToString()
        return data

    seconds = side_by_side({"ours": ours, "skl2onnx": theirs}, rounds=3)
    return [
        Row(f"{name}: writing the file", contender, took, "s", took / seconds["ours"])
        for contender, took in seconds.items()
    ]
