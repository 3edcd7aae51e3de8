"""From a loaded file to scores with reasons: features, a model, probabilities, the alerts.

An investigator looks at so many transactions a day and at no more. So what is asked of a score is
an order, and where to cut it: the *alert budget*, a share of all rows. Reasons are given for the
rows within it, since those are the ones that somebody will read. Alerts are taken from rows that
the model may be judged on; only where there are none, from all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.defaults import available_features, feature_table
from companion.models.alerts import Alerts, BudgetError
from companion.models.alerts import at_budget as alerts_at_budget
from companion.models.intervals import Interval, bootstrap
from companion.models.metrics import Scores, average_precision
from companion.models.metrics import score as measure
from companion.models.scoring.basis import (
    Basis,
    Predicts,
    lacking_features,
    own_past,
    saved_model,
    simulated_world,
)
from companion.models.scoring.reasons import Reasons
from companion.transactions import LABEL
from companion.transactions.loading import Loaded

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

OnStep = Callable[[str, int, int], None]
"""Called with the stage's name, the rows done of it, and the rows that it has."""

_SCORED_AT_ONCE = 20_000
_EXPLAINED_AT_ONCE = 50
_RESAMPLES = 100


@dataclass(frozen=True)
class Scored:
    """The scores of a file; arrays are by row of `loaded.table`.

    `score` is the model's probability of fraud, whatever `basis` lets one say of it. `alerts` are
    row positions, highest score first, and `reasons` the words for each of them. `left_out` names
    the features that could not be made, with the columns that lack. `measured`, `interval` (of
    average precision, whole customers drawn) and `at_budget` are there where the file has labels
    of both kinds among the judged rows (`interval` only with more than one customer).
    """

    loaded: Loaded
    basis: Basis
    score: Floats
    budget: float
    alerts: Positions
    reasons: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]
    measured: Scores | None
    interval: Interval | None
    at_budget: Alerts | None


def score_file(
    loaded: Loaded,
    *,
    model: str | os.PathLike[str] | None = None,
    budget: float = 0.01,
    seed: int = 0,
    on_step: OnStep = lambda stage, done, total: None,
) -> Scored:
    """Score every transaction of `loaded`.

    With `model`, by the artefact in that folder; else by the file's own past where it has labels;
    else by a simulated world. Features that the file lacks the columns for are left out of what
    is trained here, and never filled in.

    Raises `BudgetError`, and what the functions of `companion.models.scoring.basis` raise.
    """
    if not 0 < budget <= 1:
        raise BudgetError(f"the alert budget is a share of rows from above 0 to 1; got {budget:g}")
    table, rows = loaded.table, len(loaded.table)
    basis = saved_model(loaded, model) if model is not None else None
    names = basis.features if basis else available_features(table.columns)
    on_step("features", 0, rows)
    X = feature_table(table, names)
    on_step("features", rows, rows)
    if basis is None:
        on_step("training", 0, rows)
        if LABEL in table.columns:
            basis = own_past(loaded, X, seed=seed)
        else:
            basis = simulated_world(loaded, names, seed=seed)
        on_step("training", basis.trained, basis.trained)
    score = np.empty(rows)
    for chunk in _chunks(rows, _SCORED_AT_ONCE):
        score[chunk] = _fraud(basis.model, X.iloc[chunk])
        on_step("scoring", chunk.stop, rows)
    alerts = choose_alerts(score, basis.judged, budget)
    explain, reasons = Reasons(basis, X), list[str]()
    for chunk in _chunks(len(alerts), _EXPLAINED_AT_ONCE):
        reasons += explain(X.iloc[alerts[chunk]])
        on_step("reasons", chunk.stop, len(alerts))
    measured, interval, at_budget = _measure(table, basis, score, budget, seed)
    return Scored(
        loaded,
        basis,
        score,
        budget,
        alerts,
        tuple(reasons),
        lacking_features(table),
        measured,
        interval,
        at_budget,
    )


def choose_alerts(score: Floats, judged: NDArray[np.bool_], budget: float) -> Positions:
    """The `budget` highest of the judged rows (of all, where none is), highest first.

    At least one; of equal scores the earlier transaction comes first.
    """
    candidates = np.flatnonzero(judged) if judged.any() else np.arange(len(score))
    most = max(1, round(budget * len(candidates)))
    best = np.argsort(-score[candidates], kind="stable")[:most]
    return candidates[best]


def _fraud(model: Predicts, X: pd.DataFrame) -> Floats:
    return np.asarray(model.predict_proba(X), dtype="float64")[:, 1]


def _chunks(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _measure(
    table: pd.DataFrame, basis: Basis, score: Floats, budget: float, seed: int
) -> tuple[Scores | None, Interval | None, Alerts | None]:
    judged = basis.judged
    if LABEL not in table.columns or not judged.any():
        return None, None, None
    label = table[LABEL].to_numpy(dtype=bool)
    if label[judged].all() or not label[judged].any():
        return None, None, None
    # Every resample sorts by score; rows that stand in order already are sorted in no time.
    order = np.flatnonzero(judged)[np.argsort(-score[judged], kind="stable")]
    customers = table["customer_id"].to_numpy()[order]
    interval = None
    if len(np.unique(customers)) > 1:
        interval = bootstrap(
            label[order],
            score[order],
            metric=average_precision,
            seed=seed,
            resamples=_RESAMPLES,
            clusters=customers,
        )
    at_budget = alerts_at_budget(label[order], score[order], share=budget)
    return measure(label[order], score[order]), interval, at_budget
