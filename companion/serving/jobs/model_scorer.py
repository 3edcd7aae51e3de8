"""A saved model as what a worker scores with.

Stands by itself because of what it imports: a worker with a function of its own, and the HTTP side,
need neither features nor a model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.features.defaults import FEATURES, UnknownFeatureError, feature_table
from companion.models.artefacts import load_artefact
from companion.models.onnx.model import OnnxModel
from companion.serving.jobs.scoring import Floats


@dataclass(frozen=True)
class ModelScorer:
    """A saved model as a worker needs it: `features` of a whole file, then `score` of a piece.

    The file is its own history (as for `companion score`); frauds that it does not tell of
    (`label_time`) were not reported.
    """

    model: OnnxModel
    version: str

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> ModelScorer:
        """The artefact in `folder`, verified; raises what `load_artefact` raises, and
        `UnknownFeatureError` where it was trained on others than are made here."""
        artefact = load_artefact(folder)
        unknown = [name for name in artefact.model.features if name not in FEATURES]
        if unknown:
            raise UnknownFeatureError(unknown)
        return cls(artefact.model, artefact.sha256[:12])

    def features(self, transactions: pd.DataFrame) -> pd.DataFrame:
        """rows × the model's features, float64, index kept."""
        if "label_time" not in transactions.columns:
            never = pd.DatetimeIndex(np.full(len(transactions), "NaT", "datetime64[us]"), tz="UTC")
            transactions = transactions.assign(label_time=never)
        return feature_table(transactions, self.model.features)

    def score(self, features: pd.DataFrame) -> Floats:
        """The probability of fraud of each row."""
        probabilities = self.model.predict_proba(features.to_numpy())
        return np.asarray(probabilities[:, 1], dtype="float64")
