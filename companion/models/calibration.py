"""Does "3 %" mean three in a hundred? Measuring it, and repairing it.

A calibration curve puts rows with similar probabilities into one bin and compares what was
predicted with what happened. Bins of equal *mass* hold the same number of rows; bins of equal
width, the usual picture, leave nearly all rows of a rare event in the first bin and a handful in
each of the others. Intervals are Wilson's (1927), which behave at shares near zero.

Two repairs:

- *Prior correction.* Training on resampled or weighted data multiplies the odds of fraud by a
  known factor w. Dividing it out again, p / (p + (1 − p) w), restores the probability and leaves
  the ranking as it is (Elkan, 2001; Dal Pozzolo et al., *Calibrating probability with
  undersampling for unbalanced classification*, 2015). The same step moves a model to another
  base rate (Saerens, Latinne & Decaestecker, 2002).
- *Recalibration* on validation rows, for whatever the cause: Platt's sigmoid (1999), two
  parameters and robust, or isotonic regression (Zadrozny & Elkan, 2002), any rising curve, which
  needs about a thousand rows and makes ties.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from companion.models.labels import as_labels
from companion.models.metrics import Floats, as_probabilities, checked, checked_weight

_Z95 = 1.959963984540054


class CalibrationError(ValueError):
    """Calibration cannot be measured or repaired with these arguments."""


@dataclass(frozen=True)
class CalibrationCurve:
    """For each bin (arrays, from low to high): what was predicted and what happened.

    `count` is its number of rows, `mass` its share of all row weights; `low` and `high` are
    Wilson's 95 % interval of `observed`.
    """

    predicted: Floats
    observed: Floats
    count: NDArray[np.int64]
    mass: Floats
    low: Floats
    high: Floats

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean gap between predicted and observed, by mass."""
        return float(self.mass @ np.abs(self.predicted - self.observed))


def calibration_curve(
    y: ArrayLike, probability: ArrayLike, *, bins: int = 10, weight: ArrayLike | None = None
) -> CalibrationCurve:
    """Labels and probabilities (rows) in up to `bins` bins of equally many rows.

    Equal probabilities stay in one bin, so there are fewer bins where a model has few distinct
    values. Row weights, such as those that stand for another base rate, enter the means; intervals
    then follow Kish's effective number of rows. Raises `CalibrationError` for fewer than one bin,
    and what `companion.models.metrics` raises.
    """
    labels, p = checked(y, probability)
    w = checked_weight(labels, weight)
    if isinstance(bins, bool) or bins < 1:
        raise CalibrationError(f"bins must be 1 or more; got {bins!r}")
    kept = np.flatnonzero(w > 0)
    order = kept[np.argsort(p[kept])]
    ranked = p[order]
    # A border that falls among equals moves down to the first of them.
    wanted = np.linspace(0, len(order), min(bins, len(order)) + 1)[:-1].round().astype(int)
    starts = np.unique(np.searchsorted(ranked, ranked[wanted], side="left"))

    def in_bins(values: Floats) -> Floats:
        return np.add.reduceat(values[order], starts)

    mass = in_bins(w)
    observed = np.minimum(in_bins(w * labels) / mass, 1.0)
    low, high = _wilson(observed, mass**2 / in_bins(w**2))
    return CalibrationCurve(
        predicted=in_bins(w * p) / mass,
        observed=observed,
        count=np.diff(starts, append=len(order)).astype(np.int64),
        mass=mass / mass.sum(),
        low=low,
        high=high,
    )


def expected_calibration_error(y: ArrayLike, probability: ArrayLike, *, bins: int = 10) -> float:
    """The mean gap between predicted and observed over bins of equal mass.

    It depends on `bins`: a perfectly calibrated model scores above zero by chance, more so with
    more bins. Raises as `calibration_curve` does.
    """
    return calibration_curve(y, probability, bins=bins).expected_error


def undo_weight(probability: ArrayLike, weight: float) -> Floats:
    """p / (p + (1 - p) w): what training with the odds of fraud times `weight` did, undone.

    `undo_weight(p, 1 / w)` does it again. 0 and 1 stay. Raises `CalibrationError` for a weight
    that is not above 0, and `ProbabilityError`.
    """
    if not (np.isfinite(weight) and weight > 0):
        raise CalibrationError(f"weight must be above 0 and finite; got {weight!r}")
    p = as_probabilities(probability)
    corrected: Floats = p / (p + (1 - p) * weight)
    return corrected


def shift_base_rate(probability: ArrayLike, *, trained: float, actual: float) -> Floats:
    """Probabilities of a model from a world with the share `trained` of frauds, moved to `actual`.

    Holds where frauds and others look as they did, and only their numbers changed. Exchanging the
    two rates undoes it. Raises `CalibrationError` for rates that are not between 0 and 1, and
    `ProbabilityError`.
    """
    return undo_weight(probability, odds(trained) / odds(actual))


def odds(rate: float) -> float:
    """rate / (1 - rate); raises `CalibrationError` for a rate that is not between 0 and 1."""
    if not 0 < rate < 1:
        raise CalibrationError(f"a rate must lie between 0 and 1; got {rate!r}")
    return rate / (1 - rate)


def calibrate(
    model: Any, X: ArrayLike, y: ArrayLike, *, method: Literal["isotonic", "sigmoid"] = "isotonic"
) -> CalibratedClassifierCV:
    """A fitted `model` with its probabilities mapped by what happened on *validation* rows.

    `X` (rows × features) and `y` (rows) are rows that the model was not trained on; the model is
    not trained again. Raises `CalibrationError` for another method or fewer than ten frauds, and
    `LabelError`.
    """
    if method not in ("isotonic", "sigmoid"):
        raise CalibrationError(f'method must be "isotonic" or "sigmoid"; got {method!r}')
    labels = as_labels(y)
    if labels.sum() < 10:
        raise CalibrationError(f"{int(labels.sum())} frauds are too few to calibrate on; need 10")
    return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(X, labels)


def _wilson(share: Floats, count: Floats) -> tuple[Floats, Floats]:
    spread = _Z95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    reach = _Z95 / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return np.clip(centre - reach, 0.0, 1.0), np.clip(centre + reach, 0.0, 1.0)
