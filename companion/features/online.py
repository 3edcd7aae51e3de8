"""Features over windows kept up to date event by event, and asked as of any moment.

The state is a set of events, not a set of totals: each entity keeps its events in order of (time,
transaction id) beside running totals, so a late event is put in its place, a repeated one changes
nothing, and whoever asks as of an earlier moment gets what was true then. A value is two binary
searches and a difference, the same whole numbers that `companion.features.offline` divides.

Totals per fixed bucket, as streaming systems keep them (Akidau et al., *The Dataflow Model*, VLDB
2015, discuss what late events do to those), are smaller and are not equal to history: a window
then ends at a bucket's edge.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from companion.features.definitions import ID, MINUTE_US, TIME, WindowFeature, check_names
from companion.features.history import ConflictingEventError, InvalidValuesError
from companion.transactions import MissingColumnsError

Transaction = Mapping[str, Any]
"""One row of a table of transactions: column → value."""

Entity = tuple[str, ...]
Key = tuple[Hashable, ...]
Sum = tuple[str, int]
"""A column and its `per_unit`: what is added up."""


class ForgottenError(LookupError):
    """The windows asked for reach back to what `forget` has dropped; `since_us` is the first
    moment, in microseconds since 1970, that can be asked for."""

    def __init__(self, asked_us: int, since_us: int) -> None:
        asked, since = (np.datetime64(moment, "us") for moment in (asked_us, since_us))
        super().__init__(f"asked as of {asked}, but the past is kept for {since} and later")
        self.asked_us = asked_us
        self.since_us = since_us


@dataclass
class _Past:
    """The events of one entity in order, with what is added up over them."""

    times: list[int] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    totals: dict[Sum, list[int]] = field(default_factory=dict)
    frauds: dict[int, list[int]] = field(default_factory=dict)
    """By label delay: the times of the events that were reported within it."""

    def place(self, time: int, event_id: Any) -> int:
        """How many events stand before the event `event_id` of `time`."""
        low = bisect_left(self.times, time)
        return bisect_left(self.ids, event_id, low, bisect_right(self.times, time, low))

    def insert(self, time: int, event_id: Any, added: Mapping[Sum, int]) -> None:
        place = self.place(time, event_id)
        self.times.insert(place, time)
        self.ids.insert(place, event_id)
        for key, amount in added.items():
            total = self.totals.setdefault(key, [0])
            total.insert(place + 1, total[place] + amount)
            for later in range(place + 2, len(total)):
                total[later] += amount

    def drop_until(self, time: int) -> None:
        gone = bisect_right(self.times, time)
        del self.times[:gone], self.ids[:gone]
        for total in self.totals.values():
            del total[:gone]
        for reported in self.frauds.values():
            del reported[: bisect_right(reported, time)]


@dataclass
class _Seen:
    """An event that was observed, as far as features need it."""

    time: int
    content: tuple[object, ...]
    pasts: dict[Entity, _Past]


class OnlineWindows:
    """The state that serves `definitions`; one thread at a time may use it.

    Events may come late, twice, and in any order; so may reports of fraud, even before the event.
    Raises `DefinitionError` where two definitions have one name.
    """

    def __init__(self, definitions: Iterable[WindowFeature]) -> None:
        self.definitions = tuple(definitions)
        check_names(self.definitions)
        self._entities = tuple(dict.fromkeys(feature.entity for feature in self.definitions))
        # Dicts as sets that keep their order: what is added up, and which delays are told apart.
        self._sums: dict[Entity, dict[Sum, None]] = {entity: {} for entity in self._entities}
        self._delays: dict[Entity, dict[int, None]] = {entity: {} for entity in self._entities}
        for feature in self.definitions:
            if feature.column is not None:
                self._sums[feature.entity][feature.column, feature.per_unit] = None
            if feature.needs_labels:
                self._delays[feature.entity][feature.delay_us] = None
        self._columns = tuple(
            dict.fromkeys(
                [ID, TIME] + [name for feature in self.definitions for name in feature.columns]
            )
        )
        self._pasts: dict[Entity, dict[Key, _Past]] = {entity: {} for entity in self._entities}
        self._seen: dict[Any, _Seen] = {}
        self._reports: dict[Any, int] = {}
        self._since: int | None = None
        self._horizon = max((f.delay_us + f.window_us for f in self.definitions), default=0)

    def observe(self, transaction: Transaction) -> bool:
        """Take note that `transaction` happened.

        Returns False where that changes nothing: it was known, or no window reaches it any more
        (see `forget`). A `label_time` or `is_fraud` in it is not looked at: at that time nobody
        knows it.

        Raises:
            MissingColumnsError: naming what lacks (`transaction_id` is needed here).
            InvalidValuesError: an amount that is missing or infinite, a missing time or id.
            ConflictingEventError: the id is known with other content.
        """
        time, event_id = self._moment(transaction)
        content = tuple(transaction[column] for column in self._columns)
        known = self._seen.get(event_id)
        if known is not None:
            if (known.time, known.content[2:]) != (time, content[2:]):
                raise ConflictingEventError(event_id)
            return False
        if self._since is not None and time <= self._since - self._horizon:
            return False
        added = {
            entity: {key: _whole(transaction, *key) for key in self._sums[entity]}
            for entity in self._entities
        }
        keys = {entity: _key(transaction, entity) for entity in self._entities}
        seen = _Seen(time, content, {})
        for entity in self._entities:
            past = self._pasts[entity].setdefault(keys[entity], _Past())
            past.insert(time, event_id, added[entity])
            seen.pasts[entity] = past
        self._seen[event_id] = seen
        if event_id in self._reports:
            self._count_fraud(seen, self._reports[event_id])
        return True

    def report(self, event_id: Any, label_time: object) -> None:
        """Take note that the transaction `event_id` was reported as fraud at `label_time`.

        Of several reports the earliest counts.
        """
        reported = to_microseconds(label_time)
        earlier = self._reports.get(event_id)
        if earlier is not None and earlier <= reported:
            return
        self._reports[event_id] = reported
        seen = self._seen.get(event_id)
        if seen is not None:
            self._count_fraud(seen, reported, earlier)

    def values(self, transaction: Transaction) -> dict[str, float]:
        """Every feature for `transaction`, as of its time, whether it was observed before or not.

        Nothing that happened later counts, and nothing changes. Raises `MissingColumnsError`,
        `InvalidValuesError` and `ForgottenError`.
        """
        time, _ = self._moment(transaction)
        if self._since is not None and time < self._since:
            raise ForgottenError(time, self._since)
        pasts = {
            entity: self._pasts[entity].get(_key(transaction, entity), _NOTHING)
            for entity in self._entities
        }
        return {
            feature.name: self._value(feature, pasts[feature.entity], transaction, time)
            for feature in self.definitions
        }

    def forget(self, before: object) -> None:
        """Drop what no question as of `before` or later can reach; earlier ones raise from now on.

        Call it from time to time, with a moment that no late event will precede.
        """
        since = to_microseconds(before)
        if self._since is not None and since <= self._since:
            return
        self._since = since
        gone = since - self._horizon
        for pasts in self._pasts.values():
            for past in pasts.values():
                past.drop_until(gone)
            for key in [key for key, past in pasts.items() if not past.times]:
                del pasts[key]
        for event_id in [event_id for event_id, seen in self._seen.items() if seen.time <= gone]:
            del self._seen[event_id]
        self._reports = {
            event_id: reported
            for event_id, reported in self._reports.items()
            if event_id in self._seen or reported > gone
        }

    def __len__(self) -> int:
        """How many events are kept."""
        return len(self._seen)

    def _moment(self, transaction: Transaction) -> tuple[int, Any]:
        missing = [column for column in self._columns if column not in transaction]
        if missing:
            raise MissingColumnsError(missing)
        return to_microseconds(transaction[TIME]), transaction[ID]

    def _count_fraud(self, seen: _Seen, reported: int, earlier: int | None = None) -> None:
        for entity, past in seen.pasts.items():
            for delay in self._delays[entity]:
                limit = seen.time + delay
                if reported <= limit and (earlier is None or earlier > limit):
                    insort(past.frauds.setdefault(delay, []), seen.time)

    def _value(
        self, feature: WindowFeature, past: _Past, transaction: Transaction, time: int
    ) -> float:
        begin = time - feature.delay_us - feature.window_us
        first = bisect_right(past.times, begin)
        if feature.aggregate == "risk":
            until = time - feature.delay_us
            counted = bisect_right(past.times, until) - first
            frauds = past.frauds.get(feature.delay_us, [])
            known = bisect_right(frauds, until) - bisect_right(frauds, begin)
            return known / counted if counted else feature.neutral
        end = past.place(time, transaction[ID])
        own = int(feature.counts_current)
        counted = end - first + own
        if feature.aggregate == "count":
            return float(counted)
        if not counted:
            return feature.neutral
        if feature.aggregate == "minutes_since":
            return (time - past.times[end - 1]) / MINUTE_US
        key = (str(feature.column), feature.per_unit)
        total = past.totals.get(key, [0])
        inside = total[end] - total[first] + (own and _whole(transaction, *key))
        share = counted if feature.aggregate == "mean" else 1
        # As doubles, like NumPy: Python's own division of whole numbers rounds huge ones better.
        return float(inside) / float(share * feature.per_unit)


_NOTHING = _Past()


def to_microseconds(moment: object) -> int:
    """`moment` (datetime, `Timestamp`, `datetime64` or text) in microseconds since 1970, UTC.

    A moment without a zone is in UTC. Raises `InvalidValuesError` for a missing one.
    """
    stamp: Any = pd.Timestamp(moment)  # type: ignore[arg-type]
    if stamp is pd.NaT:
        raise InvalidValuesError(TIME, "a time is missing", [moment])
    return int(stamp.asm8.astype("datetime64[us]").view("int64"))  # asm8 is in UTC


def to_number(transaction: Transaction, column: str) -> float:
    """The number in `column`. Raises `InvalidValuesError` for a missing or infinite one."""
    value = transaction[column]
    if _missing(value) or not isfinite(value):
        raise InvalidValuesError(column, "a number is missing or infinite", [transaction[ID]])
    return float(value)


def _key(transaction: Transaction, entity: Entity) -> Key:
    key = tuple(transaction[column] for column in entity)
    for column, value in zip(entity, key, strict=True):
        if _missing(value):
            raise InvalidValuesError(column, "an id is missing", [transaction[ID]])
    return key


def _whole(transaction: Transaction, column: str, per_unit: int) -> int:
    return round(to_number(transaction, column) * per_unit)


def _missing(value: object) -> bool:
    # What pandas.isna says of a scalar, in a fifth of the time; NaN and NaT differ from themselves.
    return value is None or value is pd.NA or value != value
