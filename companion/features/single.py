"""The twelve features of one transaction at a time, for a service that has microseconds.

`companion.features.defaults` says what the features are, as formulas over columns, and
`companion.features.pasts` how any window is read. Both pay for being general: a column of one row
costs an array for each step of each formula, a window a call. Here the same arithmetic runs on
plain numbers, written for these twelve, and only what could differ in the last digit (logarithms,
sine, cosine) still goes through NumPy, two values at a call.

That is a second writing of one thing, and nobody should believe it. A test holds every value of
whole tables against the first writing, bit by bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from companion.features.defaults import (
    FEATURES,
    LABEL_DELAY_DAYS,
    MissingWindowsError,
    UnknownFeatureError,
    windows_of,
)
from companion.features.definitions import DAY_US, ID, MINUTE_US, TIME
from companion.features.history import InvalidValuesError
from companion.features.online import OnlineWindows, to_microseconds
from companion.features.pasts import NOTHING, Transaction, is_missing, to_number
from companion.transactions import MissingColumnsError

Row = NDArray[np.float64]

_IDS = ("customer_id", "merchant_id", "device_id")
_COLUMNS = (ID, TIME, *_IDS, "amount", "distance_km", "is_online")
_CENT = 0.01
_CENTS = ("amount", 100)
_WEEK, _MONTH, _QUARTER = 7 * DAY_US, 30 * DAY_US, 90 * DAY_US
_MONTH_MINUTES = _MONTH / MINUTE_US
_DELAY = round(LABEL_DELAY_DAYS * DAY_US)
_DAY_TO_ANGLE = 2 * np.pi / DAY_US
_THURSDAY = 3  # 1970 began on one, and Monday is 0


class SingleRow:
    """The twelve features of one transaction, from a state that keeps all the default windows.

    Called with a transaction (column → value) it gives 1 × `names` as float64, equal to what
    `online_features` gives. One thread at a time, as for the state.

    Raises `UnknownFeatureError`, and `MissingWindowsError` where the state keeps too little; when
    called, `MissingColumnsError`, `InvalidValuesError` and `ForgottenError`.
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
        self._customers = state.pasts(("customer_id",))
        self._on_devices = state.pasts(("customer_id", "device_id"))
        self._merchants = state.pasts(("merchant_id",))
        self._order = None
        if tuple(names) != FEATURES:
            self._order = [FEATURES.index(name) for name in names]

    def __call__(self, transaction: Transaction) -> Row:
        """1 × features for `transaction`, observed before or not."""
        missing = [column for column in _COLUMNS if column not in transaction]
        if missing:
            raise MissingColumnsError(missing)
        for column in _IDS:
            if is_missing(transaction[column]):
                raise InvalidValuesError(column, "an id is missing", [transaction[ID]])
        row = self.of(
            transaction[ID],
            to_microseconds(transaction[TIME]),
            transaction["customer_id"],
            transaction["merchant_id"],
            transaction["device_id"],
            to_number(transaction, "amount"),
            to_number(transaction, "distance_km"),
            to_number(transaction, "is_online"),
        )
        return row if self._order is None else row[:, self._order]

    def of(
        self,
        transaction_id: int,
        time: int,
        customer_id: int,
        merchant_id: int,
        device_id: int,
        amount: float,
        distance_km: float,
        is_online: float,
    ) -> Row:
        """1 × `FEATURES` for values that have been checked: finite, none missing.

        `time` is in microseconds since 1970, UTC. Raises `ForgottenError`.
        """
        self.state.refuse_forgotten(time)
        past = self._customers.get((customer_id,), NOTHING)
        times = past.times
        end = past.place(time, transaction_id)
        since_month = bisect_right(times, time - _MONTH)
        habit, gap = 0.0, _MONTH_MINUTES
        if end > since_month:
            cents = past.totals[_CENTS]
            habit = float(cents[end] - cents[since_month]) / float((end - since_month) * 100)
            gap = (time - times[end - 1]) / MINUTE_US
        is_new_device = False
        if end > bisect_right(times, time - _QUARTER):
            used = self._on_devices.get((customer_id, device_id), NOTHING)
            before = used.place(time, transaction_id) - bisect_right(used.times, time - _QUARTER)
            is_new_device = before == 0
        paid = max(amount, _CENT)
        logs = np.log((paid, paid / habit if habit > 0 else 1.0)).tolist()
        angle = (time % DAY_US) * _DAY_TO_ANGLE
        return np.array(
            (
                (
                    *logs,
                    *np.log1p((max(distance_km, 0.0), gap)).tolist(),
                    np.sin(angle),
                    np.cos(angle),
                    (time // DAY_US + _THURSDAY) % 7 >= 5,
                    is_online,
                    is_new_device,
                    end - bisect_right(times, time - DAY_US) + 1,
                    end - bisect_right(times, time - _WEEK) + 1,
                    self._risk(merchant_id, time - _DELAY),
                ),
            ),
            dtype=np.float64,
        )

    def _risk(self, merchant_id: int, until: int) -> float:
        past = self._merchants.get((merchant_id,), NOTHING)
        begin = until - _MONTH
        counted = bisect_right(past.times, until) - bisect_right(past.times, begin)
        if not counted:
            return 0.0
        frauds = past.frauds.get(_DELAY, ())
        return (bisect_right(frauds, until) - bisect_right(frauds, begin)) / counted
