"""The twelve features of a card transaction that the companion's models see.

Each is a formula over columns of the transaction itself and over windows of the past
(`WINDOWS`, after the rules of `companion.features.definitions`). The formulas are written once,
for columns: a whole table offline, columns of one row online. So both ways give equal values.

Amounts, distances and gaps enter as logarithms, since what matters is a factor; the hour as a
point on a circle, since 23 lies beside 0. The choice follows what Bahnsen, Aouada, Stojanovic and
Ottersten, *Feature engineering strategies for credit card fraud detection* (2016), and Le Borgne
and Bontempi, *Reproducible Machine Learning for Credit Card Fraud Detection* (2022), found to
carry most.

What is missing becomes a neutral value, never a gap: without earlier transactions an amount equals
the habit, the previous transaction was 30 days ago, and no device is new, since there is none that
it could differ from; of a merchant without transactions nothing bad is known (risk 0).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from companion.features.definitions import DAY_US, MINUTE_US, TIME, WindowFeature
from companion.features.history import Floats, Ints, lacking, microseconds, numbers
from companion.features.offline import window_arrays
from companion.features.online import OnlineWindows, Transaction, to_microseconds, to_number
from companion.transactions import LABEL, MissingColumnsError

LABEL_DELAY_DAYS = 7.0
"""A fraud reported later than this counts in no risk."""

_CENT = 0.01
_CUSTOMER = ("customer_id",)
_MONTH_MINUTES = 30 * DAY_US / MINUTE_US

_HABIT = WindowFeature("customer_amount_mean_30d", _CUSTOMER, 30, "mean", "amount")
_SINCE = WindowFeature(
    "customer_minutes_since_30d", _CUSTOMER, 30, "minutes_since", neutral=_MONTH_MINUTES
)
_COUNT_1 = WindowFeature("customer_count_1d", _CUSTOMER, 1, "count", counts_current=True)
_COUNT_7 = WindowFeature("customer_count_7d", _CUSTOMER, 7, "count", counts_current=True)
_BEFORE = WindowFeature("customer_before_90d", _CUSTOMER, 90, "count")
_ON_DEVICE = WindowFeature("device_before_90d", ("customer_id", "device_id"), 90, "count")
_RISK = WindowFeature(
    "merchant_risk_30d", ("merchant_id",), 30, "risk", label_delay_days=LABEL_DELAY_DAYS
)

WINDOWS: tuple[WindowFeature, ...] = (
    _HABIT,
    _SINCE,
    _COUNT_1,
    _COUNT_7,
    _BEFORE,
    _ON_DEVICE,
    _RISK,
)
"""The windows that the twelve features are made of."""

Inputs = Mapping[str, "Floats | Ints"]
"""Columns and windows by name, one value a row; `time` in microseconds since 1970, UTC."""


class UnknownFeatureError(ValueError):
    """`names` are no features of the default set."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"no such feature: {', '.join(names)}; there are: {', '.join(_BY_NAME)}")
        self.names = tuple(names)


class MissingWindowsError(LookupError):
    """The online state does not keep the windows `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the state keeps no {', '.join(names)}; make it with windows_of(…)")
        self.names = tuple(names)


@dataclass(frozen=True)
class _Feature:
    name: str
    formula: Callable[[Inputs], Any]
    columns: tuple[str, ...] = ()
    windows: tuple[WindowFeature, ...] = ()

    def lacks(self, columns: Collection[str]) -> list[str]:
        own = [column for column in self.columns if column not in columns]
        return [*own, *lacking(list(columns), self.windows)]


def _log_amount(values: Inputs) -> Any:
    return np.log(np.maximum(values["amount"], _CENT))


def _log_amount_to_habit(values: Inputs) -> Any:
    habit = values[_HABIT.name]
    factor = np.maximum(values["amount"], _CENT) / np.where(habit > 0, habit, 1.0)
    return np.where(habit > 0, np.log(factor), 0.0)


def _hour_angle(values: Inputs) -> Any:
    return (values[TIME] % DAY_US) * (2 * np.pi / DAY_US)


def _is_weekend(values: Inputs) -> Any:
    monday_is_0 = (values[TIME] // DAY_US + 3) % 7  # 1970 began on a Thursday
    return monday_is_0 >= 5


def _is_new_device(values: Inputs) -> Any:
    return (values[_BEFORE.name] > 0) & (values[_ON_DEVICE.name] == 0)


_ALL = (
    _Feature("log_amount", _log_amount, ("amount",)),
    _Feature("log_amount_to_habit", _log_amount_to_habit, ("amount",), (_HABIT,)),
    _Feature(
        "log_distance_km",
        lambda values: np.log1p(np.maximum(values["distance_km"], 0.0)),
        ("distance_km",),
    ),
    _Feature(
        "log_minutes_since_previous",
        lambda values: np.log1p(values[_SINCE.name]),
        windows=(_SINCE,),
    ),
    _Feature("hour_sin", lambda values: np.sin(_hour_angle(values)), (TIME,)),
    _Feature("hour_cos", lambda values: np.cos(_hour_angle(values)), (TIME,)),
    _Feature("is_weekend", _is_weekend, (TIME,)),
    _Feature("is_online", lambda values: values["is_online"], ("is_online",)),
    _Feature("is_new_device", _is_new_device, windows=(_BEFORE, _ON_DEVICE)),
    _Feature("customer_count_1d", lambda values: values[_COUNT_1.name], windows=(_COUNT_1,)),
    _Feature("customer_count_7d", lambda values: values[_COUNT_7.name], windows=(_COUNT_7,)),
    _Feature("merchant_risk_30d", lambda values: values[_RISK.name], windows=(_RISK,)),
)
_BY_NAME = {feature.name: feature for feature in _ALL}

FEATURES: tuple[str, ...] = tuple(_BY_NAME)
"""The names of the default features, in the order in which a model sees them."""


def available_features(columns: Iterable[str]) -> tuple[str, ...]:
    """Which of `FEATURES` can be made of a table with these columns, in order."""
    present = set(columns)
    return tuple(feature.name for feature in _ALL if not feature.lacks(present))


def feature_table(transactions: pd.DataFrame, names: Sequence[str] = FEATURES) -> pd.DataFrame:
    """The features `names` of every transaction: rows × names as float64, index kept, no gaps.

    The table is its own history, in any order of rows: a row sees what stood before it in order
    of (time, transaction id) and, of frauds, what had been reported. Amounts below one cent count
    as one cent, distances below 0 as 0. Times without a zone are in UTC.

    Raises:
        UnknownFeatureError: a name is none of `FEATURES`.
        MissingColumnsError: naming all columns that lack; `available_features` says what could
            be made without them.
        InvalidValuesError, ConflictingEventError: as `companion.features.offline.window_arrays`.
    """
    present = set(transactions.columns)
    missing = [column for feature in _chosen(names) for column in feature.lacks(present)]
    if missing:
        raise MissingColumnsError(list(dict.fromkeys(missing)))
    own, windows = _needed(tuple(names))
    values: dict[str, Any] = {
        column: microseconds(transactions) if column == TIME else numbers(transactions, column)
        for column in own
    }
    if windows:
        values |= window_arrays(transactions, windows)
    return pd.DataFrame(apply_formulas(values, names), index=transactions.index)


def feature_matrix(transactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series[int]]:
    """What a model sees and what it is to learn: (rows × `FEATURES`, rows as int64 0/1).

    As `feature_table`; the second is `is_fraud`, the truth, known or not at any time.
    """
    missing = {column for feature in _ALL for column in feature.lacks(set(transactions.columns))}
    if LABEL not in transactions.columns:
        missing.add(LABEL)
    if missing:
        raise MissingColumnsError(sorted(missing))
    return feature_table(transactions), transactions[LABEL].astype("int64")


def online_features(
    state: OnlineWindows, transaction: Transaction, names: Sequence[str] = FEATURES
) -> dict[str, float]:
    """The features `names` of one transaction, from a state made with `windows_of(names)`.

    Equal to what `feature_table` gives for that row of a table with the same events and reports.
    The transaction may have been observed or not; its own amount and device count as they should
    either way. Raises as `feature_table` and `OnlineWindows.values`, and `MissingWindowsError`
    where the state was made without a window that `names` need.
    """
    own, windows = _needed(tuple(names))
    past = state.values(transaction)
    missing = [column for column in own if column not in transaction]
    if missing:
        raise MissingColumnsError(missing)
    unkept = [window.name for window in windows if window.name not in past]
    if unkept:
        raise MissingWindowsError(unkept)
    values: dict[str, Any] = {name: np.array([value]) for name, value in past.items()}
    values |= {
        column: np.array([to_number(transaction, column)]) for column in own if column != TIME
    }
    values[TIME] = np.array([to_microseconds(transaction[TIME])])
    return {name: float(value[0]) for name, value in apply_formulas(values, names).items()}


def windows_of(names: Sequence[str] = FEATURES) -> tuple[WindowFeature, ...]:
    """The windows that the features `names` are made of, each once."""
    return _needed(tuple(names))[1]


def apply_formulas(values: Inputs, names: Sequence[str] = FEATURES) -> dict[str, Floats]:
    """The features `names` from `values`, one array of float64 each: the one place they are made.

    Arrays in and arrays out, also for a single row, so that one row and a million run through the
    same code of NumPy: a scalar logarithm may differ from it in the last digit.
    """
    return {
        feature.name: np.asarray(feature.formula(values), dtype="float64")
        for feature in _chosen(names)
    }


def _chosen(names: Sequence[str]) -> list[_Feature]:
    unknown = [name for name in names if name not in _BY_NAME]
    if unknown:
        raise UnknownFeatureError(unknown)
    return [_BY_NAME[name] for name in names]


@cache
def _needed(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[WindowFeature, ...]]:
    """The columns of the row itself and the windows that the features `names` are made of."""
    features = _chosen(names)
    own = dict.fromkeys(column for feature in features for column in feature.columns)
    windows = dict.fromkeys(window for feature in features for window in feature.windows)
    return tuple(own), tuple(windows)
