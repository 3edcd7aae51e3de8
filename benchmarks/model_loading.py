"""What loading a model for every request costs, beside a model that is held.

Each model is stored and read with joblib, as the usual service does it. One "request" is one
prediction of one row in this process, without HTTP, so the ratio is the cost of the loading
alone: over HTTP both sides grow by the same amount and the ratio shrinks. The baseline of each
situation is `ModelHolder`.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from companion.features import feature_matrix
from companion.instruments.benchmark import Row, side_by_side
from companion.serving import Model, ModelHolder
from companion.transactions import simulate

TITLE = "Load per request against load once"

_MODELS: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "boosted trees, 100": lambda: HistGradientBoostingClassifier(random_state=0),
    "forest, 10 trees": lambda: RandomForestClassifier(10, random_state=0),
    "forest, 100 trees": lambda: RandomForestClassifier(100, random_state=0),
    "forest, 300 trees": lambda: RandomForestClassifier(300, random_state=0),
}


def run() -> list[Row]:
    """Milliseconds a request for each model: held, loaded each time, and the reading alone."""
    X, y = feature_matrix(simulate(10_000, seed=8))
    rows = []
    with TemporaryDirectory() as folder:
        for name, make in _MODELS.items():
            path = Path(folder, "model.joblib")
            joblib.dump(make().fit(X, y), path)
            rows += _measure(name, path, X.iloc[:1])
    return rows


def _measure(name: str, path: Path, request: pd.DataFrame) -> list[Row]:
    def load() -> Model:
        model: Model = joblib.load(BytesIO(path.read_bytes()))
        return model

    holder = ModelHolder(load, warm_up=request)
    holder.load()
    seconds = side_by_side(
        {
            "ModelHolder": lambda: holder.predict_proba(request),
            "load per request": lambda: load().predict_proba(request),
            "of that, reading the file": path.read_bytes,
        },
        rounds=7,
    )
    size = path.stat().st_size / 1e6
    baseline = seconds["ModelHolder"]
    return [
        Row(f"{name} ({size:.2f} MB)", contender, value * 1e3, "ms", value / baseline)
        for contender, value in seconds.items()
    ]
