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

from bisect import insort
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from companion.features.definitions import ID, TIME, WindowFeature, check_names
from companion.features.history import ConflictingEventError, InvalidValuesError
from companion.features.pasts import (
    NOTHING,
    Past,
    Sum,
    Transaction,
    is_missing,
    reader_of,
    to_number,
    whole,
)
from companion.transactions import MissingColumnsError

__all__ = [
    "ForgottenError",
    "OnlineWindows",
    "Transaction",
    "to_microseconds",
    "to_number",
]

Entity = tuple[str, ...]
Key = tuple[Hashable, ...]


class ForgottenError(LookupError):
    """The windows asked for reach back to what `forget` has dropped; `since_us` is the first
    moment, in microseconds since 1970, that can be asked for."""

    def __init__(self, asked_us: int, since_us: int) -> None:
        asked, since = (np.datetime64(moment, "us") for moment in (asked_us, since_us))
        super().__init__(f"asked as of {asked}, but the past is kept for {since} and later")
        self.asked_us = asked_us
        self.since_us = since_us


@dataclass
class _Seen:
    """An event that was observed, as far as features need it."""

    time: int
    content: tuple[object, ...]
    pasts: dict[Entity, Past]


class OnlineWindows:
    """The state that serves `definitions`; one thread at a time may use it.

    Events may come late, twice, and in any order; so may reports of fraud, even before the event.
    Raises `DefinitionError` where two definitions have one name.
    """

    def __init__(self, definitions: Iterable[WindowFeature]) -> None:
        self.definitions = tuple(definitions)
        check_names(self.definitions)
        self._entities = tuple(dict.fromkeys(feature.entity for feature in self.definitions))
        self._readers = tuple(
            (feature.name, self._entities.index(feature.entity), reader_of(feature))
            for feature in self.definitions
        )
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
        self._pasts: dict[Entity, dict[Key, Past]] = {entity: {} for entity in self._entities}
        self._seen: dict[Any, _Seen] = {}
        self._reports: dict[Any, int] = {}
        self._since: int | None = None
        self.latest_us: int | None = None
        """The time of the newest event observed, in microseconds since 1970, UTC."""
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
            entity: {key: whole(transaction, *key) for key in self._sums[entity]}
            for entity in self._entities
        }
        keys = {entity: _key(transaction, entity) for entity in self._entities}
        seen = _Seen(time, content, {})
        for entity in self._entities:
            past = self._pasts[entity].setdefault(keys[entity], Past())
            past.insert(time, event_id, added[entity])
            seen.pasts[entity] = past
        self._seen[event_id] = seen
        if self.latest_us is None or time > self.latest_us:
            self.latest_us = time
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
        time, event_id = self._moment(transaction)
        self.refuse_forgotten(time)
        pasts = [
            self._pasts[entity].get(_key(transaction, entity), NOTHING) for entity in self._entities
        ]
        ends = [past.place(time, event_id) for past in pasts]
        return {
            name: read(pasts[entity], time, ends[entity], transaction)
            for name, entity, read in self._readers
        }

    def pasts(self, entity: Entity) -> Mapping[Key, Past]:
        """The pasts of `entity`, as they are now and will be; for reading. Raises `KeyError`."""
        return self._pasts[entity]

    def refuse_forgotten(self, time: int) -> None:
        """Raise `ForgottenError` for a time (microseconds since 1970) that is too long ago."""
        if self._since is not None and time < self._since:
            raise ForgottenError(time, self._since)

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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(moment: object) -> int:
    """`moment` (datetime, `Timestamp`, `datetime64` or text) in microseconds since 1970, UTC.

    A moment without a zone is in UTC. Raises `InvalidValuesError` for a missing one.
    """
    if type(moment) is datetime and moment.tzinfo is not None:  # pandas' own would cost 5 times
        since = moment - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    stamp: Any = pd.Timestamp(moment)  # type: ignore[arg-type]
    if stamp is pd.NaT:
        raise InvalidValuesError(TIME, "a time is missing", [moment])
    return int(stamp.asm8.astype("datetime64[us]").view("int64"))  # asm8 is in UTC


def _key(transaction: Transaction, entity: Entity) -> Key:
    key = tuple([transaction[column] for column in entity])
    for value in key:
        if is_missing(value):
            column = entity[key.index(value)]
            raise InvalidValuesError(column, "an id is missing", [transaction[ID]])
    return key
