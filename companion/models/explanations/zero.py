"""Why contributions are zero, or look it: five causes that are often taken for one another.

A contribution is exactly zero when the function that was explained does not change, whatever the
coalition: because the model is constant, because what was compared is equal, or because its
probabilities had been cut down to labels before. It is nearly zero when two mirror images were
averaged, since what speaks for fraud speaks against its opposite. And it may not be zero at all,
only shorter than the digits on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion.models.explanations.errors import FraudClassError, InputError
from companion.models.explanations.explain import explain
from companion.models.explanations.explanation import Explanation, Floats
from companion.models.explanations.fraud_class import fraud_column
from companion.models.explanations.probabilities import fraud_probability
from companion.models.explanations.tables import numbers

CauseName = Literal[
    "one class only",
    "constant model",
    "background equals the row",
    "mean over classes",
    "hard labels",
    "display rounding",
    "features not used",
]

_NEARLY = 1e-9  # nothing but rounding of floating point numbers


@dataclass(frozen=True)
class Cause:
    """One reason for zeros: its name, what was measured, and what helps."""

    name: CauseName
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}; {self.remedy}"


@dataclass(frozen=True)
class ZeroReport:
    """How many of the contributions are zero, and why.

    `share_zero` is the share of values below 1e-9, `share_shown_zero` the share that is shown as
    zero with the digits asked about; `causes` come most telling first and may be none.
    """

    share_zero: float
    share_shown_zero: float
    causes: tuple[Cause, ...]

    def __str__(self) -> str:
        head = f"{self.share_zero:.0%} of the values are zero, {self.share_shown_zero:.0%} as shown"
        return "\n".join([head, *(f"- {cause}" for cause in self.causes)])


def why_zero(
    model: Any,
    X: pd.DataFrame | ArrayLike,
    values: Explanation | ArrayLike | None = None,
    *,
    background: pd.DataFrame | ArrayLike | None = None,
    decimals: int = 2,
    fraud: object = None,
) -> ZeroReport:
    """Look for the causes of zeros in `values`, the contributions that somebody got for `X`.

    Args:
        model: the model, with `predict_proba` and `classes_`.
        X: rows × features that were explained.
        values: rows × features, from wherever; ours are made where none are given.
        background: what the rows were compared with, if anything.
        decimals: with how many digits the values were looked at.
        fraud: the label of fraud, where it does not speak for itself.

    Raises `InputError` where `values` is not rows × features (`values[..., 1]` of rows × features
    × classes is), and what `explain` raises where it has to.
    """
    data = numbers(X)
    try:
        column = fraud_column(model, fraud)
    except FraudClassError as error:
        if len(error.classes) != 1:
            raise
        return ZeroReport(1.0, 1.0, (_one_class(error.classes[0]),))
    given = _as_array(values, data)
    if given is None:
        given = explain(model, X, background=background, fraud=fraud).values
    compared = None if background is None else numbers(background)
    causes = _causes(model, data, given, compared, column, decimals)
    zero, shown = np.abs(given) < _NEARLY, np.abs(given) < 0.5 * 10.0**-decimals
    return ZeroReport(float(zero.mean()), float(shown.mean()), tuple(causes))


def _causes(
    model: Any, data: Floats, given: Floats, background: Floats | None, column: int, decimals: int
) -> list[Cause]:
    rows = data if background is None else np.concatenate([data, background])
    probability = fraud_probability(model, rows, column)
    spread = float(np.ptp(probability))
    causes = []
    equal = _equal_rows(data, background)
    if equal.any():
        causes.append(
            Cause(
                "background equals the row",
                f"{int(equal.sum())} of {len(data)} rows are compared with themselves",
                "take a background of other rows, 50 to 200 of the training data",
            )
        )
    live = given[~equal]
    if not len(live):
        return causes
    if len(rows) > 1 and spread < _NEARLY:
        return [
            *causes,
            Cause(
                "constant model",
                f"it says {probability[0]:.4f} for each of {len(rows):,} rows",
                "look at how it was trained: too large leaves, too much regularisation, no fraud",
            ),
        ]
    if (np.abs(live) < _NEARLY).all():
        averaged = Cause(
            "mean over classes",
            f"all values are below {_NEARLY:g}, while the model's probabilities differ by "
            f"{spread:.3f}",
            "take the fraud class alone: values[..., column] or explain()",
        )
        if len(np.unique(probability >= 0.5)) > 1:
            return [*causes, averaged]
        labelled = Cause(
            "hard labels",
            f"the label at one half is the same for all {len(rows):,} rows; the probabilities "
            f"differ by {spread:.3f}",
            "explain predict_proba, not predict",
        )
        # Labels that never flip give zeros to the last bit; mirror images leave rounding behind.
        return [*causes, *((averaged, labelled) if live.any() else (labelled, averaged))]
    hard = _labels_explained(live, probability[: len(data)][~equal])
    if hard:
        causes.append(
            Cause(
                "hard labels",
                f"the sums of the rows take {hard} values, a whole 1 apart; the probabilities do "
                "not",
                "explain predict_proba, not predict",
            )
        )
    hidden = (np.abs(live) >= _NEARLY) & (np.abs(live) < 0.5 * 10.0**-decimals)
    if hidden.any():
        causes.append(
            Cause(
                "display rounding",
                f"{hidden.mean():.0%} of the values are not zero and are shown as such with "
                f"{decimals} decimals; the largest of all is {np.abs(live).max():.3g}",
                "print more digits, or compare with the base rate",
            )
        )
    unused = int((live == 0).all(axis=0).sum())
    if unused:
        causes.append(
            Cause(
                "features not used",
                f"{unused} of {data.shape[1]} features have no effect in any row",
                "that may be right: the model found no use for them",
            )
        )
    return causes


def _one_class(label: object) -> Cause:
    return Cause(
        "one class only",
        f"the model has seen only {label!r}",
        "train it on rows of both classes: there was no fraud, or no label of it",
    )


def _as_array(values: Explanation | ArrayLike | None, data: Floats) -> Floats | None:
    if values is None:
        return None
    array = np.asarray(
        values.values if isinstance(values, Explanation) else values, dtype="float64"
    )
    if array.shape != data.shape:
        raise InputError(
            f"values have the shape {array.shape} and the rows {data.shape}; of rows × features × "
            "classes take values[..., column], of a list of classes values[column]"
        )
    return array


def _equal_rows(data: Floats, background: Floats | None) -> Any:
    """Which rows equal every row of the background."""
    if background is None:
        return np.zeros(len(data), dtype=bool)
    alike = (background == background[0]).all()
    return (data == background[0]).all(axis=1) & alike


def _labels_explained(values: Floats, probability: Floats) -> int:
    """How many values the rows' sums take where that gives labels away; 0 where it does not.

    A row's sum is its score less the base. Scores of 0 and 1 are two values, 1 apart.
    """
    sums = np.unique(np.round(values.sum(axis=1), 6))
    if len(np.unique(np.round(probability, 6))) <= 2 or len(sums) > 2:
        return 0
    if len(sums) == 2 and abs(sums[1] - sums[0] - 1) > 1e-5:
        return 0
    return len(sums)
