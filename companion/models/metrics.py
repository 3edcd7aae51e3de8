"""How good are probabilities of fraud? Four numbers, none of which is enough alone.

*Average precision* and *ROC-AUC* judge the order: do frauds stand above the rest? The *Brier
score* and the *log loss* judge the probabilities themselves, which any cost calculation needs.
Average precision means nothing without the share of frauds, which is what a model without any
knowledge reaches, so the two are never given apart (Davis & Goadrich, *The relationship between
precision-recall and ROC curves*, 2006; Saito & Rehmsmeier, 2015). Brier score: G. W. Brier,
*Verification of forecasts expressed in terms of probability*, 1950.

Every metric takes row weights. A bootstrap is a matter of weights (how often a row was drawn), and
so is the question how a model would do at another base rate.

What is refused is what otherwise gives a number: logits taken for probabilities, both columns of
`predict_proba`, missing values, one class only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.models.labels import as_labels

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_CERTAIN = float(np.finfo(np.float64).eps)  # how near 0 and 1 the log loss lets a model go


class ProbabilityError(ValueError):
    """These are no probabilities of fraud; `found` is the first value that shows it, if one does.

    `position` is the row of that value.
    """

    def __init__(
        self, problem: str, *, found: float | None = None, position: int | None = None
    ) -> None:
        super().__init__(f"probabilities must be numbers from 0 to 1, one a row: {problem}")
        self.found = found
        self.position = position


class RowsMismatchError(ValueError):
    """`labels` rows of labels stand beside `found` rows of `what`."""

    def __init__(self, what: str, labels: int, found: int) -> None:
        super().__init__(f"{labels} labels and {found} {what}; they must be of the same rows")
        self.what = what
        self.labels = labels
        self.found = found


class WeightError(ValueError):
    """Row weights are negative or missing, or leave nothing of one class."""


@dataclass(frozen=True)
class Scores:
    """What `rows` rows with `frauds` frauds say about a model.

    `average_precision` is to be read against `base_rate`, the share of frauds, and `brier` against
    `base_rate * (1 - base_rate)`, what the base rate itself scores as a constant forecast.
    """

    average_precision: float
    base_rate: float
    roc_auc: float
    brier: float
    log_loss: float
    rows: int
    frauds: int

    @property
    def lift(self) -> float:
        """Average precision as a multiple of the base rate."""
        return self.average_precision / self.base_rate

    def __str__(self) -> str:
        return (
            f"average precision {self.average_precision:.3f} (base rate {self.base_rate:.3f}), "
            f"ROC-AUC {self.roc_auc:.3f}, Brier {self.brier:.4f}, log loss {self.log_loss:.4f}, "
            f"{self.frauds} frauds in {self.rows} rows"
        )


def score(y: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Scores:
    """All of them at once for labels `y` and the probability of fraud (both: rows).

    Raises `LabelError` for labels other than 0 and 1 or of one class only, `ProbabilityError`,
    `RowsMismatchError` and `WeightError`, as every function here does.
    """
    labels, p = checked(y, probability)
    w = checked_weight(labels, weight)
    return Scores(
        average_precision=average_precision(labels, p, w),
        base_rate=float(np.average(labels, weights=w)),
        roc_auc=roc_auc(labels, p, w),
        brier=brier(labels, p, w),
        log_loss=log_loss(labels, p, w),
        rows=len(labels),
        frauds=int(labels.sum()),
    )


def average_precision(
    y: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None
) -> float:
    """The mean of the precision over the frauds, each at its own threshold; ties count together."""
    labels, p = checked(y, probability)
    caught, alerts = _caught_and_alerts(labels, p, checked_weight(labels, weight))
    # Rows without weight at the top give alerts of 0, and catch nothing.
    precision = caught / np.where(alerts > 0, alerts, 1.0)
    return float(np.sum(precision * np.diff(caught, prepend=0.0)) / caught[-1])


def roc_auc(y: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The probability that a fraud stands above a legitimate transaction; a tie counts half."""
    labels, p = checked(y, probability)
    caught, alerts = _caught_and_alerts(labels, p, checked_weight(labels, weight))
    false_alarms = alerts - caught
    below = np.diff(false_alarms, prepend=0.0)
    before = np.concatenate([[0.0], caught[:-1]])
    return float(np.sum(below * (before + caught) / 2) / (caught[-1] * false_alarms[-1]))


def brier(y: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean squared difference between probability and outcome: 0 is best."""
    labels, p = checked(y, probability)
    return float(np.average((p - labels) ** 2, weights=checked_weight(labels, weight)))


def log_loss(y: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean of -log of the probability given to what happened, in nats.

    Certainty that turns out wrong would cost infinitely much; it is held to one part in 4.5e15.
    """
    labels, p = checked(y, probability)
    given = np.clip(np.where(labels == 1, p, 1 - p), _CERTAIN, 1.0)
    return float(np.average(-np.log(given), weights=checked_weight(labels, weight)))


def checked(y: ArrayLike, probability: ArrayLike) -> tuple[Labels, Floats]:
    """Labels (int64, 0 and 1) and probabilities (float64) of the same rows, or a refusal."""
    labels = as_labels(y)
    p = as_probabilities(probability)
    if len(p) != len(labels):
        raise RowsMismatchError("probabilities", len(labels), len(p))
    return labels, p


def checked_weight(labels: Labels, weight: ArrayLike | None) -> Floats:
    """Row weights as float64, ones by default; both classes keep some. Raises `WeightError`."""
    if weight is None:
        return np.ones(len(labels))
    w = np.asarray(weight, dtype=np.float64)
    if w.shape != labels.shape:
        raise RowsMismatchError("weights", len(labels), len(w) if w.ndim else 1)
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise WeightError("weights must be finite numbers from 0 up")
    if not (w[labels == 1].sum() > 0 and w[labels == 0].sum() > 0):
        raise WeightError("the weights leave nothing of one class")
    return w


def as_probabilities(values: ArrayLike) -> Floats:
    """`values` (rows) as float64 from 0 to 1; raises `ProbabilityError`."""
    p = np.asarray(values, dtype=np.float64)
    if p.ndim == 2 and p.shape[1] == 2:
        raise ProbabilityError("these are two columns; take that of fraud, predict_proba(X)[:, 1]")
    if p.ndim != 1:
        raise ProbabilityError(f"they have the shape {p.shape}")
    missing = np.isnan(p)
    if missing.any():
        problem = f"{int(missing.sum())} of {len(p)} are missing"
        raise ProbabilityError(problem, position=int(np.argmax(missing)))
    outside = (p < 0) | (p > 1)
    if outside.any():
        first = int(np.argmax(outside))
        raise ProbabilityError(
            f"row {first} holds {p[first]:g}; are these logits? "
            "A softmax or sigmoid makes probabilities of them",
            found=float(p[first]),
            position=first,
        )
    return p


def thresholds_of(p: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows from the highest probability down, and where in that order each run of ties ends."""
    order = np.argsort(-p)
    ends = np.flatnonzero(np.diff(p[order], append=-np.inf))
    return order, ends


def _caught_and_alerts(labels: Labels, p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """At each distinct probability as threshold: weight of frauds caught, and of all alerts."""
    order, ends = thresholds_of(p)
    weight = w[order]
    return np.cumsum(weight * labels[order])[ends], np.cumsum(weight)[ends]
