"""One function for every model: contributions to the score of fraud, in a stated unit, that add up.

| model | without a background | with one |
|---|---|---|
| forest, decision tree | probability | probability |
| boosting | log-odds | log-odds; probability, by coalitions |
| logistic regression | nothing | log-odds; probability, by coalitions |
| network, any other `predict_proba` | nothing | probability or log-odds, by coalitions |

All are exact, none is sampled. Trees without a background take the training rows, as the trees
remember them, for what is usual; everything else compares with the rows of the background.

Measured with twelve features, per second of one core, sums checked: 29,000 rows of boosting with
150 rounds (200,000 rows in 7 s), some 600 rows of a forest of 50 unpruned trees, and by coalitions
against 50 rows some 30 rows of a network and 3 of boosting in probability. A background of any
length costs trees about as much as none. `benchmarks/explanations.py` measures it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from companion.models.explanations.errors import (
    AdditivityError,
    BackgroundError,
    UnitError,
    UnsupportedModelError,
)
from companion.models.explanations.explanation import (
    TOLERANCE,
    UNITS,
    Explanation,
    Floats,
    Unit,
    check_additivity,
)
from companion.models.explanations.fraud_class import fraud_column
from companion.models.explanations.leaves import BOOSTING, FORESTS, leaves_of
from companion.models.explanations.methods import ByCoalitions, ByLeaves, ByWeights, Method
from companion.models.explanations.probabilities import fraud_probability
from companion.models.explanations.tables import check_names, feature_names, numbers


def explain(
    model: Any,
    X: pd.DataFrame | ArrayLike,
    *,
    background: pd.DataFrame | ArrayLike | None = None,
    unit: Unit | None = None,
    fraud: object = None,
) -> Explanation:
    """What each feature of each row of `X` contributes to the model's score of fraud.

    Args:
        model: fitted, with `predict_proba` and `classes_`; a scikit-learn pipeline is explained
            in the features that go into it.
        X: rows × features, numbers only; one row is `X.iloc[[0]]`.
        background: rows × features to compare with, such as a part of the training data; see the
            table of this module for who needs it.
        unit: `"probability"` or `"log-odds"`; by default the model's own, which is log-odds for
            boosting and logistic regression and probability for all others.
        fraud: the label of fraud in `classes_`, where it does not speak for itself.

    Raises:
        FraudClassError: which class is fraud cannot be told.
        UnitError: this model cannot give that unit, or not without a background.
        BackgroundError: one is needed, or it has other columns than `X`.
        PreprocessingError: a pipeline mixes columns before trees or a linear model.
        InputError: `X` or `background` is no table of numbers, has other columns than the model
            was fitted to, or too many features for coalitions.
        UnsupportedModelError: no `predict_proba`, categorical splits, and the like.
        AdditivityError: the parts do not add up to what the model says; nothing is returned.
    """
    return Explainer(model, background=background, unit=unit, fraud=fraud)(X)


class Explainer:
    """`explain` for one model: prepared once, called many times, from several threads if need be.

    Arguments and errors are those of `explain`. What is wrong with the model, the unit or the
    background is said here, what is wrong with the rows when it is called.
    """

    def __init__(
        self,
        model: Any,
        *,
        background: pd.DataFrame | ArrayLike | None = None,
        unit: Unit | None = None,
        fraud: object = None,
    ) -> None:
        if not hasattr(model, "predict_proba"):
            raise UnsupportedModelError(model, "it has no predict_proba")
        if unit is not None and unit not in UNITS:
            raise UnitError(unit, UNITS, "there is no such unit")
        self.model = model
        self._column = fraud_column(model, fraud)
        self._background = None
        if background is not None:
            check_names(background, model)
            self._background = numbers(background)
        inner = _inner(model)
        self.unit: Unit = unit or _own_unit(inner)
        self._method = self._choose(inner)

    def __call__(self, X: pd.DataFrame | ArrayLike) -> Explanation:
        """The explanation of `X` (rows × features)."""
        check_names(X, self.model)
        data = numbers(X)
        if self._background is not None and self._background.shape[1] != data.shape[1]:
            raise BackgroundError(
                f"the background has {self._background.shape[1]} features and the rows have "
                f"{data.shape[1]}"
            )
        probability = fraud_probability(self.model, data, self._column)
        values, base, output = self._method(data)
        if self.unit == "probability":
            output = probability
        _check_unit(output, probability, self.unit)
        check_additivity(values, base, output, self.unit)
        names = feature_names(X, self.model, data.shape[1])
        return Explanation(values, base, self.unit, data, names, output, probability)

    def _choose(self, inner: Any) -> Method:
        steps, background = _steps(self.model), self._background
        if isinstance(inner, FORESTS) and self.unit == "log-odds":
            raise UnitError("log-odds", ("probability",), "a forest averages probabilities")
        if isinstance(inner, FORESTS):
            return ByLeaves(leaves_of(inner, self._column), steps, background)
        # The leaves and weights of two classes speak of the second.
        sign = 1.0 if self._column == 1 else -1.0
        if isinstance(inner, BOOSTING) and self.unit == "log-odds":
            return ByLeaves(leaves_of(inner, self._column), steps, background, sign)
        if isinstance(inner, BOOSTING) and background is None:
            raise UnitError(
                "probability",
                ("log-odds", "probability with background="),
                "boosting adds up log-odds; probabilities need rows to compare with",
            )
        if background is None:
            raise BackgroundError(
                f"{type(inner).__name__} needs rows to compare with: "
                "background=X_train.sample(50, random_state=0), say"
            )
        if isinstance(inner, LogisticRegression) and self.unit == "log-odds":
            if len(inner.classes_) != 2:
                raise UnitError("log-odds", ("probability",), "there are more than two classes")
            weights, intercept = sign * inner.coef_[0], sign * float(inner.intercept_[0])
            return ByWeights(weights, intercept, steps, background)
        return ByCoalitions(self.model, self._column, self.unit, background)


def _inner(model: Any) -> Any:
    return model[-1] if isinstance(model, Pipeline) else model


def _steps(model: Any) -> Any:
    return model[:-1] if isinstance(model, Pipeline) and len(model.steps) > 1 else None


def _own_unit(inner: Any) -> Unit:
    return "log-odds" if isinstance(inner, (*BOOSTING, LogisticRegression)) else "probability"


def _check_unit(output: Floats, probability: Floats, unit: Unit) -> None:
    """Raise `AdditivityError` unless `output` (rows) means the probability that the model gave."""
    meant = output if unit == "probability" else expit(output)
    off = np.abs(meant - probability)
    if not (off <= TOLERANCE["probability"]).all():
        row = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise AdditivityError(row, float(off[row]), "probability", TOLERANCE["probability"])
