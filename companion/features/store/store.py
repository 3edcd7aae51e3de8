"""A feature store: one definition of a view, two ways to read it, equal by construction.

Offline, `as_of` answers what was known about an entity at a time in the past: for training, where a
value that arrived later would leak. Online, `online` answers what is known now, from a store that
`materialize` keeps up to date: for serving, where there is a millisecond. Both go through the same
rule (`point_in_time`), so right after a materialisation, online is what `as_of` says for now. What
remains is the lag between the two, and it is visible: every answer carries its age.

The idea is that of Uber's Michelangelo (2017) and of Feast: the skew between training and serving
comes from computing a feature twice.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.extensions import take

from companion.features.store.errors import UnknownViewError
from companion.features.store.history import History, Ingested
from companion.features.store.homes import OnlineHome
from companion.features.store.homes.memory import MemoryHome
from companion.features.store.point_in_time import UNKNOWN
from companion.features.store.records import decode, encode, event_time_of
from companion.features.store.view import FeatureView


@dataclass(frozen=True)
class Materialized:
    """What a materialisation did: of `keys` known at `now`, `moved` went to a newer value."""

    now: datetime
    keys: int
    moved: int


@dataclass(frozen=True, slots=True)
class Served:
    """The online answer for one key.

    `values` has every feature of the view, `None` for a missing one; all are where the key is
    unknown (`age` is `None` then) or the values are older than the view's ttl (`stale`).
    """

    values: dict[str, Any]
    event_time: datetime | None
    age: timedelta | None
    stale: bool


class FeatureStore:
    """Views with their history under the folder `root` and their latest values in `home`.

    `clock` gives the present as an aware time, where a call does not name it. Methods take the view
    itself, so that two versions of one can be served side by side.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        home: OnlineHome | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.home = home or MemoryHome()
        self._root = Path(root)
        self._clock = clock
        self._histories: dict[str, History] = {}

    def register(self, view: FeatureView) -> None:
        """Make `view` known, here and under `root`; registering it again changes nothing.

        Raises `ViewConflictError` where this version of it was registered with another definition,
        by whichever process.
        """
        self._histories[view.id] = History(self._root, view)

    def ingest(self, view: FeatureView, frame: pd.DataFrame) -> Ingested:
        """Add the rows of `frame` to the history: in one step, or nothing of it.

        `frame` has the view's columns in any order and any further ones, which are left out. Rows
        that were ingested before are skipped.

        Raises `UnknownViewError`, `FrameRefusedError` (see its kinds), `StoreBusyError`.
        """
        return self._history(view).ingest(frame)

    def as_of(
        self, view: FeatureView, entities: pd.DataFrame, *, time: str = "event_time"
    ) -> pd.DataFrame:
        """`entities` with the values that were known at each row's `time`.

        One row for each row, order, index and duplicates kept. Added are the features (declared
        dtypes), `<view>_event_time` and `<view>_age`. A key that was unknown then has all of them
        missing; one whose values were older than the ttl has its event time and age.

        Raises `UnknownViewError`, `FrameRefusedError`.
        """
        history = self._history(view)
        keys = view.checked_entities(entities, time)
        times = view.times(entities, time, floor=True)
        timeline = history.timeline()
        found = timeline.known(keys, times)
        event = _taken(timeline.rows[view.event_time], found)
        age = times.array - event
        if view.ttl is not None:
            found = np.where(np.asarray(age > view.ttl), UNKNOWN, found)
        added = {name: _taken(timeline.rows[name], found) for name in view.features}
        return _beside(entities, added, {view.event_time_column: event, view.age_column: age})

    def materialize(self, view: FeatureView, now: datetime | None = None) -> Materialized:
        """Bring the online side to what is known at `now`.

        A key never goes back to an older value, whoever materialises when; running it again, or two
        at once, changes nothing. Killed in between, it leaves some keys old and some new, each of
        them whole, and the next run completes it.

        Raises `UnknownViewError`, `ValueError` for a time without a zone, and what the home raises.
        """
        moment = self._moment(now)
        timeline = self._history(view).timeline()
        records = encode(view, timeline.rows, timeline.latest(moment))
        return Materialized(moment, len(records), self.home.put(view.id, records))

    def online(
        self, view: FeatureView, keys: Sequence[object], now: datetime | None = None
    ) -> list[Served]:
        """The latest materialised values of each key, in order, in one round trip.

        A key is a scalar, or a tuple for a view with several entity columns. Ages are counted at
        `now`; a negative one says that the clock of whoever wrote the value is ahead of ours.

        Raises `UnknownViewError`, `FrameRefusedError` for a key of another type, `ValueError` for a
        time without a zone, `UnreadableRecordError`, and what the home raises.
        """
        self._history(view)
        moment = self._moment(now)
        texts = [view.key_text(key) for key in keys]
        answers = []
        for text, record in zip(texts, self.home.get(view.id, texts), strict=True):
            if record is None:
                answers.append(Served(dict.fromkeys(view.features), None, None, stale=False))
                continue
            values = decode(view, self.home.name, text, record.payload)
            event = event_time_of(record.stamp)
            age = moment - event
            stale = view.ttl is not None and age > view.ttl
            shown = dict.fromkeys(view.features) if stale else values
            answers.append(Served(shown, event, age, stale))
        return answers

    def online_frame(
        self, view: FeatureView, entities: pd.DataFrame, now: datetime | None = None
    ) -> pd.DataFrame:
        """`online` for a frame of entities, in the shape and the dtypes that `as_of` gives."""
        keys = view.checked_entities(entities)
        rows = list(zip(*(keys[name].tolist() for name in view.entities), strict=True))
        served = self.online(view, rows, now)
        added = {
            name: pd.array([row.values[name] for row in served], dtype=cast(Any, dtype))
            for name, dtype in view.features.items()
        }
        event = pd.array([row.event_time for row in served], dtype=view.dtypes[view.event_time])
        age = pd.array([row.age for row in served], dtype="timedelta64[us]")
        return _beside(entities, added, {view.event_time_column: event, view.age_column: age})

    def _history(self, view: FeatureView) -> History:
        try:
            return self._histories[view.id]
        except KeyError:
            raise UnknownViewError(view.id, sorted(self._histories)) from None

    def _moment(self, now: datetime | None) -> datetime:
        moment = self._clock() if now is None else now
        if moment.tzinfo is None:
            raise ValueError(f"now must know its zone, and {moment} does not")
        return moment.astimezone(UTC)


def _taken(column: "pd.Series[Any]", positions: Any) -> Any:
    """The values at `positions`, missing where there is no row."""
    return take(column.array, positions, allow_fill=True)


def _beside(entities: pd.DataFrame, *parts: dict[str, Any]) -> pd.DataFrame:
    added = {name: values for part in parts for name, values in part.items()}
    return pd.concat([entities, pd.DataFrame(added, index=entities.index)], axis=1)
