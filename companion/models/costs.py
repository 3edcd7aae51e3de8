"""What a threshold costs, and which one costs least.

A threshold is a price list: a missed fraud costs so much, a false alarm so much. With calibrated
probabilities the best threshold needs no search: alert where the expected loss of letting go,
p × missed, exceeds that of stopping, (1 − p) × false alarm (Elkan, *The foundations of
cost-sensitive learning*, 2001). With any other scores the best threshold is looked up on
validation rows. The rows that choose a threshold make it look better than it is, so what it costs
is then measured on rows that chose nothing.

A missed fraud may cost a fixed sum, a share of its amount, or both. Where the amount counts, no
single threshold is best: a large payment deserves an alert at a smaller probability.

All thresholds are priced in one sort: going down the ranking, each row moves from "let go" to
"alerted", and running sums do the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from companion.models.metrics import (
    Floats,
    RowsMismatchError,
    checked,
    checked_weight,
    thresholds_of,
)


class CostError(ValueError):
    """Costs, amounts or a threshold are out of range, or amounts are needed and missing."""


@dataclass(frozen=True)
class Costs:
    """What mistakes cost, in one currency.

    A missed fraud costs `missed` plus `missed_share` of its amount; stopping an honest customer
    costs `false_alarm`. Raises `CostError` for negative or infinite costs, and where a missed
    fraud or a false alarm costs nothing, which leaves nothing to weigh.
    """

    missed: float
    false_alarm: float
    missed_share: float = 0.0

    def __post_init__(self) -> None:
        costs = (self.missed, self.false_alarm, self.missed_share)
        if not all(np.isfinite(cost) and cost >= 0 for cost in costs):
            raise CostError(f"costs must be finite and 0 or more; got {self}")
        if self.missed + self.missed_share == 0 or self.false_alarm == 0:
            raise CostError(f"a missed fraud and a false alarm must cost something; got {self}")


@dataclass(frozen=True)
class ThresholdCost:
    """What alerting from `threshold` up costs: in sum, and counted in (weighted) rows."""

    threshold: float
    cost: float
    alerts: float
    missed: float
    false_alarms: float


@dataclass(frozen=True)
class CostCurve:
    """Every threshold that makes a difference, from infinity (no alerts) down, and its cost.

    All arrays have one value for each threshold; a row is alerted if its probability is at least
    the threshold.
    """

    thresholds: Floats
    cost: Floats
    alerts: Floats
    missed: Floats
    false_alarms: Floats

    def at(self, threshold: float) -> ThresholdCost:
        """What any `threshold` costs; raises `CostError` for NaN."""
        if np.isnan(threshold):
            raise CostError("the threshold is NaN")
        return self._at_place(int(np.sum(self.thresholds >= threshold)) - 1, threshold)

    @property
    def best(self) -> ThresholdCost:
        """The cheapest threshold; of several the highest, which disturbs the fewest customers."""
        place = int(np.argmin(self.cost))
        return self._at_place(place, float(self.thresholds[place]))

    def _at_place(self, place: int, threshold: float) -> ThresholdCost:
        return ThresholdCost(
            threshold=threshold,
            cost=float(self.cost[place]),
            alerts=float(self.alerts[place]),
            missed=float(self.missed[place]),
            false_alarms=float(self.false_alarms[place]),
        )


def cost_curve(
    y: ArrayLike,
    probability: ArrayLike,
    costs: Costs,
    *,
    amounts: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> CostCurve:
    """The cost of every threshold for labels, probabilities, `amounts` and weights (rows each).

    Raises `CostError` for missing or negative amounts, or none where `missed_share` needs them,
    and what `companion.models.metrics` raises.
    """
    labels, p = checked(y, probability)
    w = checked_weight(labels, weight)
    loss = np.full(len(labels), float(costs.missed))
    if costs.missed_share:
        loss += costs.missed_share * _checked_amounts(amounts, len(labels))
    order, ends = thresholds_of(p)
    frauds = (w * labels)[order]
    others = (w * (1 - labels))[order]
    avoided = _from_none(frauds * loss[order], ends)
    caught = _from_none(frauds, ends)
    false_alarms = _from_none(others, ends)
    return CostCurve(
        thresholds=np.concatenate([[np.inf], p[order][ends]]),
        cost=avoided[-1] - avoided + costs.false_alarm * false_alarms,
        alerts=caught + false_alarms,
        missed=caught[-1] - caught,
        false_alarms=false_alarms,
    )


def cost_at(
    y: ArrayLike,
    probability: ArrayLike,
    threshold: float,
    costs: Costs,
    *,
    amounts: ArrayLike | None = None,
) -> ThresholdCost:
    """What alerting on `probability >= threshold` costs; raises as `cost_curve` does."""
    return cost_curve(y, probability, costs, amounts=amounts).at(threshold)


def best_threshold(
    y: ArrayLike, probability: ArrayLike, costs: Costs, *, amounts: ArrayLike | None = None
) -> ThresholdCost:
    """The cheapest threshold on *validation* rows, and its cost there, which flatters it.

    Raises as `cost_curve` does.
    """
    return cost_curve(y, probability, costs, amounts=amounts).best


def theory_threshold(costs: Costs) -> float:
    """Where a calibrated probability pays for an alert: false alarm / (false alarm + missed).

    Raises `CostError` where the loss depends on the amount; `theory_thresholds` is for that.
    """
    if costs.missed_share:
        raise CostError("the loss depends on the amount: theory_thresholds gives one a row")
    return costs.false_alarm / (costs.false_alarm + costs.missed)


def theory_thresholds(costs: Costs, amounts: ArrayLike) -> Floats:
    """The same for each of `amounts` (rows): the larger the amount, the lower the threshold."""
    loss = costs.missed + costs.missed_share * _checked_amounts(amounts, None)
    thresholds: Floats = costs.false_alarm / (costs.false_alarm + loss)
    return thresholds


def _from_none(values: Floats, ends: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)[ends]])


def _checked_amounts(amounts: ArrayLike | None, rows: int | None) -> Floats:
    if amounts is None:
        raise CostError("a share of the amount is lost with a missed fraud, so give amounts")
    values = np.asarray(amounts, dtype=np.float64)
    if rows is not None and values.shape != (rows,):
        raise RowsMismatchError("amounts", rows, values.size)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise CostError("amounts must be finite numbers from 0 up")
    return values
