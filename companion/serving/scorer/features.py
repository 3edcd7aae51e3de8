"""Where the features of a request come from, and what is known of them: age, and if they are whole.

A feature source answers one question: what does the model see of this transaction? The answer says
how old it is, for features that stopped being updated look exactly like features, and a score made
of them looks exactly like a score.

`StateFeatures` asks the windows in this process. `companion.serving.scorer.stored` asks a feature
store, which several machines share.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from companion.features.defaults import windows_of
from companion.features.online import OnlineWindows, to_microseconds
from companion.features.single import SingleRow
from companion.serving.schemas import Transaction

_SECOND = 1_000_000


class Features(NamedTuple):
    """1 × `FEATURES` as float64, how old they are, and whether they are less than they should be.

    `age` is how many seconds the state lags behind the transaction; `None` where nothing is known.
    """

    row: NDArray[np.float64]
    age: float | None
    degraded: bool


@runtime_checkable
class LocalFeatures(Protocol):
    """Gives the features of one transaction from this process, in microseconds."""

    def read(self, transaction: Transaction) -> Features: ...


class RemoteFeatures(Protocol):
    """Gives them from elsewhere; its own time limits see to it that nobody waits for long."""

    async def aread(self, transaction: Transaction) -> Features: ...


FeatureSource = LocalFeatures | RemoteFeatures
"""What either raises costs the features, and not the answer."""


class StateFeatures:
    """Features from windows kept in this process, which some stream of events feeds.

    The age is how far the newest event of the state lies before the transaction: the watermark of
    stream processing, and no wall clock is involved. Older than `max_age` seconds is degraded.

    Raises `ValueError` for a `max_age` that is not positive, `MissingWindowsError` for a state that
    keeps other windows; `read` raises `ForgottenError` for a transaction before the state's past.
    """

    def __init__(self, state: OnlineWindows, *, max_age: float = 3600.0) -> None:
        if not 0 < max_age < math.inf:
            raise ValueError(f"max_age is a positive number of seconds; got {max_age}")
        self.state = state
        self._single = SingleRow(state)
        self._max_age = max_age

    def read(self, transaction: Transaction) -> Features:
        """Features as of the transaction's time; it may have been observed before or not."""
        time = to_microseconds(transaction.time)
        row = _row(self._single, transaction, time)
        latest = self.state.latest_us
        if latest is None:
            return Features(row, None, True)
        age = (time - latest) / _SECOND if time > latest else 0.0
        return Features(row, age, age > self._max_age)


class NoHistory:
    """What is known of a transaction about which nothing is known but itself.

    A customer's habits are those of a stranger. What stands in for every source that fails.
    """

    def __init__(self) -> None:
        self._single = SingleRow(OnlineWindows(windows_of()))

    def read(self, transaction: Transaction) -> Features:
        """Features of the row itself, the windows empty; degraded, of no age."""
        row = _row(self._single, transaction, to_microseconds(transaction.time))
        return Features(row, None, True)


def _row(single: SingleRow, transaction: Transaction, time: int) -> NDArray[np.float64]:
    return single.of(
        transaction.transaction_id,
        time,
        transaction.customer_id,
        transaction.merchant_id,
        transaction.device_id,
        transaction.amount,
        transaction.distance_km,
        transaction.is_online,
    )
