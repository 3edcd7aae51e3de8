"""What explaining costs: our leaves beside shap's TreeExplainer, and a network by coalitions.

Ratios: rows a second to shap's on the same model and rows. Both contenders give the same values
(tests/models/test_explanations_trees.py); shap gets fewer rows, since it takes longer for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import shap

from companion.features import feature_matrix
from companion.instruments.benchmark import Row, side_by_side
from companion.models import make_net, single_threaded
from companion.models.explanations import Explainer, reason_table
from companion.models.families import make_boosting, make_forest
from companion.transactions import simulate

TITLE = "Explanations"

_ROWS = 20_000
_FOR_SHAP = 100


def run() -> list[Row]:
    X, y = feature_matrix(simulate(_ROWS, seed=0))
    boosting = make_boosting(seed=0).fit(X, y)
    forest = make_forest(seed=0, trees=50).fit(X, y)
    background = X.iloc[:: _ROWS // 100]
    rows = [
        *_trees("boosting, 150 rounds", boosting, X, None),
        *_trees("boosting, background of 100", boosting, X, background),
        *_trees("forest, 50 trees", forest, X.iloc[:2000], None),
    ]
    with single_threaded():
        net = make_net(epochs=2, seed=0).fit(X, y)
        rows += _alone(
            "network by coalitions, background of 50",
            Explainer(net, background=background.iloc[::2]),
            X.iloc[:20],
        )
    explanation = Explainer(boosting)(X)
    took = side_by_side({"ours": lambda: reason_table(explanation)}, rounds=3)["ours"]
    return [*rows, Row("reasons in words, three a row", "ours", len(X) / took, "rows/s")]


def _trees(what: str, model: Any, X: pd.DataFrame, background: pd.DataFrame | None) -> list[Row]:
    explain = Explainer(model, background=background)
    theirs = shap.TreeExplainer(
        model[-1], None if background is None else background.to_numpy(dtype="float32")
    )
    few = X.to_numpy(dtype="float32")[:_FOR_SHAP]
    explain(X.iloc[:1])  # compiles, or reads what was compiled
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "shap": (lambda: theirs.shap_values(few, check_additivity=False), len(few)),
        "ours, sum checked": (lambda: explain(X), len(X)),
    }
    seconds = side_by_side({name: call for name, (call, _) in contenders.items()}, rounds=3)
    speed = {name: count / seconds[name] for name, (_, count) in contenders.items()}
    target = {"ours, sum checked": "above 2 × shap"}
    one = side_by_side({"ours": lambda: explain(X.iloc[:1])}, rounds=21)["ours"]
    return [
        *(
            Row(what, name, rate, "rows/s", rate / speed["shap"], target.get(name, ""))
            for name, rate in speed.items()
        ),
        Row(f"{what}: one row", "ours, sum checked", one * 1e3, "ms"),
    ]


def _alone(what: str, explain: Explainer, X: pd.DataFrame) -> list[Row]:
    took = side_by_side({"ours": lambda: explain(X)}, rounds=3)["ours"]
    return [Row(what, "ours, sum checked", float(np.round(len(X) / took, 1)), "rows/s")]
