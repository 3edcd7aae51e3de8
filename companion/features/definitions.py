"""What a feature over a window is: said once, computed twice.

A `WindowFeature` names whose past is looked at (the entity), how far back (the window), what is
made of it (the aggregate), how late labels are (the label delay) and whether the event that asks
counts itself. `companion.features.offline` computes it over a whole table, and
`companion.features.online` from a state that is updated event by event; neither has any choice
left to make, so that what a model was trained on is what it is served.

The rules that both keep:

- **Order.** Events stand in order of (time, transaction id). Of two events of the same instant,
  the one with the greater id sees the other, and not the reverse.
- **Window.** (t − w, t], where t is the time of the event that asks: an event exactly w old is
  out. Of the events in it, those count that stand before the asking one, and itself where
  `counts_current` says so.
- **Risk.** The share of frauds among the events of (t − d − w, t − d], where a fraud is what was
  reported within d, the label delay, of its event. All of that was known at t: the youngest event
  of that window is d old.
- **Exactness.** Amounts are summed as whole numbers (cents), so that a sum does not depend on the
  order of adding, and both ways divide the same whole numbers.

The point-in-time rule is that of Kaufman, Rosset and Perlich, *Leakage in Data Mining* (KDD 2011):
legitimate is what was known when the prediction had to be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Aggregate = Literal["count", "sum", "mean", "risk", "minutes_since"]
"""What is made of the events in a window.

`count`: how many; `sum` and `mean`: of a column; `risk`: the share that was reported as fraud;
`minutes_since`: how long ago the latest of them was."""

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000

ID = "transaction_id"
TIME = "time"
LABEL_TIME = "label_time"

_OF_A_COLUMN = ("sum", "mean")


class DefinitionError(ValueError):
    """A feature is not well defined: `field` of the feature `name` is wrong."""

    def __init__(self, name: str, field: str, reason: str) -> None:
        super().__init__(f"feature {name!r}: {field} {reason}")
        self.name = name
        self.field = field


@dataclass(frozen=True)
class WindowFeature:
    """One number about the recent past of an entity, as of an event.

    Args:
        name: the column that it becomes.
        entity: the columns that say whose past; two of them mean the pair.
        days: length of the window, w.
        aggregate: see `Aggregate`.
        column: what `sum` and `mean` are of.
        per_unit: `column` is summed in whole 1/per_unit: 100 for euros in cents.
        label_delay_days: d, for `risk` only, where it must be positive.
        counts_current: whether the event that asks is one of those counted; never for `risk`,
            whose window ends before it, nor for `minutes_since`, which would always be 0.
        neutral: the value where no event counts.

    Raises:
        DefinitionError: these do not fit together.
    """

    name: str
    entity: tuple[str, ...]
    days: float
    aggregate: Aggregate
    column: str | None = None
    per_unit: int = 100
    label_delay_days: float = 0.0
    counts_current: bool = False
    neutral: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.entity, tuple) or not self.entity:
            raise DefinitionError(self.name, "entity", "is a tuple of one or more columns")
        if self.aggregate not in get_args(Aggregate):
            raise DefinitionError(
                self.name, "aggregate", f"is one of {', '.join(get_args(Aggregate))}"
            )
        if not self.days * DAY_US >= 1:
            raise DefinitionError(self.name, "days", f"is a microsecond or more; got {self.days!r}")
        if (self.column is not None) != (self.aggregate in _OF_A_COLUMN):
            raise DefinitionError(self.name, "column", "belongs to a sum or a mean, and only there")
        if self.per_unit < 1:
            raise DefinitionError(self.name, "per_unit", "is a whole number from 1 up")
        if (self.label_delay_days > 0) != (self.aggregate == "risk"):
            raise DefinitionError(
                self.name, "label_delay_days", "is positive for a risk, and 0 otherwise"
            )
        if self.counts_current and self.aggregate in ("risk", "minutes_since"):
            raise DefinitionError(self.name, "counts_current", f"cannot be for {self.aggregate}")

    @property
    def window_us(self) -> int:
        """Length of the window in whole microseconds."""
        return round(self.days * DAY_US)

    @property
    def delay_us(self) -> int:
        """Label delay in whole microseconds."""
        return round(self.label_delay_days * DAY_US)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of, but for the labels (see `needs_labels`)."""
        return (TIME, *self.entity, *((self.column,) if self.column else ()))

    @property
    def needs_labels(self) -> bool:
        """Whether it is made of reported frauds: `label_time`, or `is_fraud` where that lacks."""
        return self.aggregate == "risk"


def check_names(definitions: Sequence[WindowFeature]) -> None:
    """Raise `DefinitionError` where two features have one name."""
    seen: set[str] = set()
    for feature in definitions:
        if feature.name in seen:
            raise DefinitionError(feature.name, "name", "is that of another feature too")
        seen.add(feature.name)


def window_features(
    entities: Sequence[str] = ("customer_id", "merchant_id"),
    days: Sequence[int] = (1, 7, 30),
    *,
    label_delay_days: float = 7.0,
) -> tuple[WindowFeature, ...]:
    """Count, sum and mean of amounts, and risk, for each entity and window.

    They are named `customer_count_1d`, `customer_amount_sum_1d`, `customer_amount_mean_1d`,
    `customer_risk_1d` and so on. Counts and sums count the event that asks (how much is going on
    now?); means and risks do not (what is usual?).
    """
    made: list[WindowFeature] = []
    for entity in entities:
        who = entity.removesuffix("_id")
        for length in days:
            key, suffix = (entity,), f"{length}d"
            made += [
                WindowFeature(f"{who}_count_{suffix}", key, length, "count", counts_current=True),
                WindowFeature(
                    f"{who}_amount_sum_{suffix}", key, length, "sum", "amount", counts_current=True
                ),
                WindowFeature(f"{who}_amount_mean_{suffix}", key, length, "mean", "amount"),
                WindowFeature(
                    f"{who}_risk_{suffix}", key, length, "risk", label_delay_days=label_delay_days
                ),
            ]
    return tuple(made)
