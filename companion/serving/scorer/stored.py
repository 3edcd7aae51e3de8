"""Features from a feature store: what several machines share, read over the network.

Windows in the process's own memory are exact and belong to one process. Where many serve, somebody
writes down from time to time what the windows hold (`publish`, with the state that a stream feeds),
and everybody reads it (`StoredFeatures`), from Redis in about a millisecond. What is lost is what
happened since: the answer carries the age, and beyond `max_age` it is `degraded`.

A request reads three records: its customer's, the customer's device's, and its merchant's.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.defaults import FEATURES, WINDOWS, apply_formulas
from companion.features.definitions import DAY_US, MINUTE_US, TIME
from companion.features.online import OnlineWindows, to_microseconds
from companion.features.pasts import reader_of
from companion.features.store import FeatureStore, FeatureView
from companion.serving.schemas import Transaction
from companion.serving.scorer.features import Features

LATEST = "latest_us"
"""When the customer's last transaction was, in microseconds since 1970."""

_GAP = "customer_minutes_since_30d"
_THREADS = 4
_READERS = {window.name: reader_of(window) for window in WINDOWS}
_COUNTS_ITSELF = {window.name for window in WINDOWS if window.counts_current}
_NEUTRAL = {window.name: window.neutral for window in WINDOWS}
_MONTH_US = 30 * DAY_US


@dataclass(frozen=True)
class _Kind:
    """One kind of record: a view, and the windows in it."""

    view: FeatureView
    windows: tuple[str, ...]

    @property
    def entity(self) -> tuple[str, ...]:
        return tuple(self.view.entities)


def _kind(name: str, entity: tuple[str, ...]) -> _Kind:
    windows = tuple(w.name for w in WINDOWS if w.entity == entity and w.name != _GAP)
    features = dict.fromkeys(windows, "float64")
    if entity == ("customer_id",):
        features[LATEST] = "Int64"
    return _Kind(FeatureView(name, dict.fromkeys(entity, "int64"), features, ttl=None), windows)


KINDS = (
    _kind("customer_windows", ("customer_id",)),
    _kind("device_windows", ("customer_id", "device_id")),
    _kind("merchant_windows", ("merchant_id",)),
)
VIEWS = tuple(kind.view for kind in KINDS)


def publish(store: FeatureStore, state: OnlineWindows, moment: datetime) -> int:
    """Write down what the windows of `state` hold at `moment`; how many records went to the store.

    Raises `ForgottenError` for a moment that the state has forgotten, `ValueError` for one without
    a zone, and what the store raises.
    """
    if moment.tzinfo is None:
        raise ValueError(f"moment must know its zone, and {moment} does not")
    time = to_microseconds(moment)
    state.refuse_forgotten(time)
    moved = 0
    for kind in KINDS:
        store.register(kind.view)
        rows = _rows(kind, state, time)
        if not rows:
            continue
        frame = pd.DataFrame(rows)
        stamp = pd.Timestamp(moment).tz_convert("UTC").as_unit("us")
        frame[kind.view.event_time] = stamp
        frame[kind.view.created_time] = stamp
        if LATEST in frame:
            frame[LATEST] = frame[LATEST].astype("Int64")
        store.ingest(kind.view, frame)
        moved += store.materialize(kind.view, moment).moved
    return moved


def _rows(kind: _Kind, state: OnlineWindows, time: int) -> list[dict[str, Any]]:
    rows = []
    for key, past in state.pasts(kind.entity).items():
        end = past.place(time + 1, 0)  # all that happened up to the moment
        row: dict[str, Any] = dict(zip(kind.entity, key, strict=True))
        for name in kind.windows:
            # The transaction that will ask is not there yet, and is added when it asks.
            row[name] = _READERS[name](past, time, end, {}) - (name in _COUNTS_ITSELF)
        if kind.entity == ("customer_id",):
            row[LATEST] = past.times[end - 1] if end else None
        rows.append(row)
    return rows


class StoredFeatures:
    """Reads what `publish` wrote; a `RemoteFeatures` for a `Scorer`.

    Older than `max_age` seconds, or of a customer who is not in the store, is degraded. What the
    store raises goes to the caller, whose breaker it is for; the store's own timeout bounds each
    look. `close` lets its threads go.

    Raises `ValueError` for a `max_age` that is not positive, and what registering a view raises.
    """

    def __init__(self, store: FeatureStore, *, max_age: float = 300.0) -> None:
        if not 0 < max_age < math.inf:
            raise ValueError(f"max_age is a positive number of seconds; got {max_age}")
        for view in VIEWS:
            store.register(view)
        self._store = store
        self._max_age = timedelta(seconds=max_age)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="features")

    async def aread(self, transaction: Transaction) -> Features:
        """Features of `transaction` as of the last publication; the loop does not wait for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.read_blocking, transaction)

    def read_blocking(self, transaction: Transaction) -> Features:
        """The same in this thread; raises what the store raises."""
        time = to_microseconds(transaction.time)
        windows = dict(_NEUTRAL)
        ages: list[timedelta] = []
        for kind in KINDS:
            keys = tuple(getattr(transaction, column) for column in kind.entity)
            key = keys if len(keys) > 1 else keys[0]
            served = self._store.online(kind.view, [key], transaction.time)[0]
            if served.age is None:
                continue
            ages.append(served.age)
            windows |= {name: served.values[name] for name in kind.windows}
            latest = served.values.get(LATEST)
            if latest is not None and time - _MONTH_US < latest <= time:
                windows[_GAP] = (time - latest) / MINUTE_US
        for name in _COUNTS_ITSELF:
            windows[name] += 1
        row = _features(windows, transaction, time)
        if not ages:
            return Features(row, None, True)
        age = max(*ages, timedelta(0))
        return Features(row, age.total_seconds(), age > self._max_age)

    def close(self) -> None:
        """Let the threads end; what is being read ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _features(
    windows: dict[str, float], transaction: Transaction, time: int
) -> NDArray[np.float64]:
    own = {
        "amount": transaction.amount,
        "distance_km": transaction.distance_km,
        "is_online": float(transaction.is_online),
    }
    values: dict[str, Any] = {
        name: np.array([value], dtype="float64") for name, value in (windows | own).items()
    }
    values[TIME] = np.array([time])
    made = apply_formulas(values)
    return np.array([[float(made[name][0]) for name in FEATURES]])
