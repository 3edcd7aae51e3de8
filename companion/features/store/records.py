"""What lies under one online key: a stamp that can be compared, and the values behind it.

The stamp is (event time, created time) as forty digits, so that *later* is plain text order, the
same in Python, in SQLite and in a Lua script on a Redis server. (Digits only, on purpose: Lua
compares text by the server's locale, and digits stand in the same order in all of them.) One rule
then keeps every home from going back in time: a record replaces another only if its stamp is
greater.

The payload is a JSON array, the fingerprint of the view's features first. Floats survive exactly
(the shortest text that reads back as the same double), nothing is ever unpickled, and a person can
read it with `redis-cli`.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from companion.features.store.errors import UnreadableRecordError
from companion.features.store.view import FeatureView

STAMP_DIGITS = 40

_OFFSET = 2**63  # moves signed 64-bit microseconds to numbers of twenty digits at most
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PYTHON_TYPES = {"float64": float, "Int64": int, "boolean": bool, "str": str}


class Record(NamedTuple):
    """One key's values as a home keeps them: `stamp` orders, `payload` holds."""

    stamp: str
    payload: str


def stamp_of(event: int, created: int) -> str:
    """The stamp for times in microseconds since 1970."""
    return f"{event + _OFFSET:020d}{created + _OFFSET:020d}"


def event_time_of(stamp: str) -> datetime:
    """The event time in a stamp, in UTC."""
    return _EPOCH + _MICROSECOND * (int(stamp[:20]) - _OFFSET)


def encode(
    view: FeatureView, rows: pd.DataFrame, positions: npt.NDArray[np.int64]
) -> list[tuple[str, Record]]:
    """(key text, record) for the rows of `view` at `positions`."""
    chosen = rows.take(positions)
    keys = zip(*(chosen[name].tolist() for name in view.entities), strict=True)
    times = zip(
        *(
            chosen[name].to_numpy(dtype="datetime64[us]").astype(np.int64).tolist()
            for name in (view.event_time, view.created_time)
        ),
        strict=True,
    )
    values = zip(*(_plain(chosen[name]) for name in view.features), strict=True)
    fingerprint = view.fingerprint
    return [
        (
            view.key_text(key),
            Record(stamp_of(*time), json.dumps([fingerprint, *row], separators=(",", ":"))),
        )
        for key, time, row in zip(keys, times, values, strict=True)
    ]


def decode(view: FeatureView, home: str, key: str, payload: str | bytes) -> dict[str, Any]:
    """Feature → value (`None`: missing) from a payload; raises `UnreadableRecordError`."""
    try:
        fingerprint, *values = json.loads(payload)
    except (ValueError, TypeError) as error:
        raise UnreadableRecordError(home, key, f"no JSON array ({error})") from error
    if fingerprint != view.fingerprint or len(values) != len(view.features):
        raise UnreadableRecordError(
            home, key, f"it was written with other features than those of {view.id}"
        )
    for value, (name, dtype) in zip(values, view.features.items(), strict=True):
        if value is not None and type(value) is not _PYTHON_TYPES[dtype]:
            raise UnreadableRecordError(home, key, f"{name} is {value!r}, not a {dtype}")
    return dict(zip(view.features, values, strict=True))


def _plain(column: "pd.Series[Any]") -> list[Any]:
    missing = column.isna().tolist()
    return [None if gone else value for gone, value in zip(missing, column.tolist(), strict=True)]
