"""The twelve features of one transaction at a time, for a service that has microseconds.

`companion.features.defaults` says what the features are, as formulas over columns; a column of one
row costs an array for each step of each formula. Here the same arithmetic runs on plain floats, and
only what could differ in the last digit (logarithms, sine, cosine) still goes through NumPy, two
values at a call. That is a second writing of one thing, so a test holds every value of a whole
table against the first, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from companion.features.defaults import (
    FEATURES,
    MissingWindowsError,
    UnknownFeatureError,
    windows_of,
)
from companion.features.definitions import DAY_US, TIME
from companion.features.online import OnlineWindows, to_microseconds
from companion.features.pasts import Transaction, to_number
from companion.transactions import MissingColumnsError

_OWN = ("amount", "distance_km", "is_online")
_CENT = 0.01
_DAY_TO_ANGLE = 2 * np.pi / DAY_US
_THURSDAY = 3  # 1970 began on one, and Monday is 0


class SingleRow:
    """The features `names` of one transaction, from a state that keeps all the default windows.

    Called with a transaction (column → value) it gives 1 × `names` as float64, equal to what
    `online_features` gives. One thread at a time, as for the state.

    Raises `UnknownFeatureError`, and `MissingWindowsError` where the state keeps too little; when
    called, as `online_features` does.
    """

    def __init__(self, state: OnlineWindows, names: Sequence[str] = FEATURES) -> None:
        unknown = [name for name in names if name not in FEATURES]
        if unknown:
            raise UnknownFeatureError(unknown)
        kept = set(state.definitions)
        unkept = [window.name for window in windows_of() if window not in kept]
        if unkept:
            raise MissingWindowsError(unkept)
        self.state = state
        self._order = None
        if tuple(names) != FEATURES:
            self._order = [FEATURES.index(name) for name in names]

    def __call__(self, transaction: Transaction) -> NDArray[np.float64]:
        """1 × features for `transaction`, observed before or not."""
        missing = [column for column in _OWN if column not in transaction]
        if missing:
            raise MissingColumnsError(missing)
        row = row_of(self.state.values(transaction), transaction)
        return row if self._order is None else row[:, self._order]


def row_of(windows: Mapping[str, float], transaction: Transaction) -> NDArray[np.float64]:
    """1 × `FEATURES` from the values of the default windows and the transaction itself.

    Raises `InvalidValuesError` for a missing or infinite number and a missing time.
    """
    amount = max(to_number(transaction, "amount"), _CENT)
    distance = max(to_number(transaction, "distance_km"), 0.0)
    time = to_microseconds(transaction[TIME])
    habit = windows["customer_amount_mean_30d"]
    is_new = windows["customer_before_90d"] > 0 and windows["device_before_90d"] == 0
    log_amount, log_to_habit = np.log((amount, amount / habit if habit > 0 else 1.0)).tolist()
    log_distance, log_minutes = np.log1p((distance, windows["customer_minutes_since_30d"])).tolist()
    angle = (time % DAY_US) * _DAY_TO_ANGLE
    return np.array(
        (
            (
                log_amount,
                log_to_habit,
                log_distance,
                log_minutes,
                np.sin(angle),
                np.cos(angle),
                (time // DAY_US + _THURSDAY) % 7 >= 5,
                to_number(transaction, "is_online"),
                is_new,
                windows["customer_count_1d"],
                windows["customer_count_7d"],
                windows["merchant_risk_30d"],
            ),
        ),
        dtype=np.float64,
    )
