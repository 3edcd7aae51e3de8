"""What a score of somebody's file is learned from, and what may therefore be said of it.

Three cases, from best to worst founded. A saved model brings its own history. A file with labels
has a past: the model learns from it as it was known on the day that the rest begins, and is judged
on the rest alone. A file without labels teaches nothing; what is left is a model of the simulated
world, whose order of suspicion may carry over, and whose probabilities do not: another base rate,
other amounts, other customers.

Each case says which rows it may be judged on. A row that the model was trained on is no evidence
for the model, and neither is one whose label was not known yet when it was trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.defaults import FEATURES, available_features, feature_table
from companion.models.artefacts import load_artefact
from companion.models.families import make_boosting
from companion.models.onnx.model import OnnxModel
from companion.models.splits import split_by_time
from companion.transactions import LABEL, MissingColumnsError, known_fraud, simulate
from companion.transactions.loading import Loaded

Kind = Literal["saved model", "own past", "simulated world"]
Part = Literal["trained on", "left out", "unseen"]

SIMULATED_ROWS = 100_000


class Predicts(Protocol):
    """Anything with scikit-learn's `predict_proba`: rows × 2, legitimate and fraud."""

    def predict_proba(self, X: pd.DataFrame) -> NDArray[Any]: ...


@dataclass(frozen=True)
class SavedModel:
    """An ONNX model that looks like scikit-learn's: classes 0 and 1, probabilities in float64."""

    model: OnnxModel
    classes_: tuple[int, int] = (0, 1)

    def predict_proba(self, X: pd.DataFrame | NDArray[np.float64]) -> NDArray[np.float64]:
        """rows × 2, legitimate and fraud; columns by name, or in the model's order."""
        return self.model.predict_proba(X).astype("float64")


class UnfitFileError(ValueError):
    """The file at `path` lacks what the saved model needs: `columns`, for `features`."""

    def __init__(self, path: Path, needs: Mapping[str, tuple[str, ...]]) -> None:
        self.columns = tuple(dict.fromkeys(name for names in needs.values() for name in names))
        self.features = tuple(needs)
        super().__init__(
            f"{path}: the saved model needs {_phrases(needs)}; the file lacks "
            f"{', '.join(self.columns)}. Say which columns these are, or score without the model"
        )
        self.path = path


class UnknownFeaturesError(ValueError):
    """The saved model was trained on `features`, which this version does not make."""

    def __init__(self, folder: Path, features: tuple[str, ...]) -> None:
        super().__init__(
            f"{folder}: the model was trained on {', '.join(features)}, which are none of the "
            f"features made here ({', '.join(FEATURES)})"
        )
        self.features = features


@dataclass(frozen=True)
class Basis:
    """A model, and what entitles it to score these rows.

    `features` are the columns of the matrix in the model's order. `part` says of every row of the
    file what it was to the model, `begins` is when the rows begin that it is judged on (None: all
    are). `trained` and `trained_frauds` count what it learned from (0: nobody wrote it down).
    """

    kind: Kind
    model: Predicts
    features: tuple[str, ...]
    part: NDArray[Any]
    begins: datetime | None
    trained: int = 0
    trained_frauds: int = 0
    name: str = ""

    @property
    def judged(self) -> NDArray[np.bool_]:
        """The rows whose scores are honest."""
        return np.asarray(self.part == "unseen", dtype=bool)


def own_past(loaded: Loaded, X: pd.DataFrame, *, seed: int) -> Basis:
    """Boosting on the file's first 70 %, without the last week before the cut.

    `X` (rows × features) belongs to `loaded.table`. Where the file says when labels became known,
    only those count that were known at the cut. Raises `SplitError` where the file has too few
    days, rows or frauds for a past and a rest.
    """
    split = split_by_time(loaded.table)
    past = loaded.table.iloc[split.train]
    if "label_time" in past.columns:
        y = known_fraud(past, split.test_from.to_pydatetime())
    else:
        y = past[LABEL].to_numpy(dtype=bool)
    model = make_boosting(seed=seed).fit(X.iloc[split.train], y)
    part = np.full(len(X), "left out", dtype=object)
    part[split.train], part[split.test] = "trained on", "unseen"
    return Basis(
        "own past",
        model,
        tuple(X.columns),
        part,
        split.test_from.to_pydatetime(),
        len(split.train),
        int(y.sum()),
    )


def simulated_world(
    loaded: Loaded, features: tuple[str, ...], *, seed: int, rows: int = SIMULATED_ROWS
) -> Basis:
    """Boosting on `rows` simulated transactions, seeing only `features`."""
    table = simulate(rows, seed=seed)
    model = make_boosting(seed=seed).fit(feature_table(table, features), table[LABEL])
    part = np.full(len(loaded.table), "unseen", dtype=object)
    return Basis("simulated world", model, features, part, None, rows, int(table[LABEL].sum()))


def saved_model(loaded: Loaded, folder: str | os.PathLike[str]) -> Basis:
    """The artefact in `folder`, verified; what it was trained on or before is no evidence for it.

    Raises what `load_artefact` raises, `UnknownFeaturesError`, and `UnfitFileError` where the
    file lacks columns that its features are made of.
    """
    artefact = load_artefact(folder)
    features = artefact.metadata.features
    unknown = tuple(name for name in features if name not in FEATURES)
    if unknown:
        raise UnknownFeaturesError(Path(folder), unknown)
    needs = {name: why for name, why in lacking_features(loaded.table).items() if name in features}
    if needs:
        raise UnfitFileError(loaded.path, needs)
    first, last = artefact.metadata.training.window
    time = loaded.table["time"]
    part = np.full(len(time), "unseen", dtype=object)
    part[(time <= last).to_numpy()] = "trained on"
    part[(time < first).to_numpy()] = "left out"  # it knows their future
    seen = bool((part != "unseen").any())
    return Basis(
        "saved model",
        SavedModel(artefact.model),
        features,
        part,
        last if seen else None,
        name=Path(folder).name,
    )


def lacking_features(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The features that cannot be made of `table`, each with the columns that it would need."""
    made = available_features(table.columns)
    return {name: _columns_lacking(table, name) for name in FEATURES if name not in made}


def _columns_lacking(table: pd.DataFrame, feature: str) -> tuple[str, ...]:
    try:
        feature_table(table.iloc[:0], (feature,))
    except MissingColumnsError as error:
        return error.columns
    return ()


def _phrases(needs: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name} (made of {', '.join(names)})" for name, names in needs.items())
