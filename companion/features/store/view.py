"""A view: which features of which entity, how long they count, and what their frames look like.

The one definition that both paths share. A frame is checked against it as a whole before anything
is stored, and comes out in one canonical form: the view's columns in its order, the declared
dtypes, times in UTC with microseconds. What cannot be converted without loss is refused by name.

A row of a view says: *this key had these values at `event_time`, and that was written down at
`created_time`.* The two differ whenever data arrives late or is corrected; keeping both is the
bitemporal model of Snodgrass, *Developing Time-Oriented Database Applications in SQL* (1999).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype

from companion.features.store.errors import (
    ClashingColumnsError,
    FrameRefusedError,
    InvalidViewError,
    MissingColumnsError,
    MissingKeysError,
    MissingTimesError,
    NaiveTimeError,
    WrongDtypeError,
)

TIME_DTYPE = "datetime64[us, UTC]"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
# What each declared dtype takes in: only what it can hold without loss.
_KEY_DTYPES = {
    "int64": (*_INTEGERS, "Int64"),
    "str": ("str", "string"),
}
_FEATURE_DTYPES = {
    "float64": ("float64", "float32"),
    "Int64": (*_INTEGERS, "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32"),
    "boolean": ("bool", "boolean"),
    "str": ("str", "string"),
}
_PYTHON_KEYS: dict[str, tuple[type, ...]] = {"int64": (int, np.integer), "str": (str,)}


@dataclass(frozen=True)
class FeatureView:
    """Features of one kind of entity, written together and read together.

    `entities` maps key columns to `int64` or `str`; `features` maps feature columns to `float64`,
    `Int64`, `boolean` or `str`, the dtypes that can say *missing*. A value older than `ttl` counts
    as missing; `None` never does. `version` goes up whenever the definition changes: the new one
    has rows and online keys of its own, so old and new can serve side by side.

    Raises `InvalidViewError`.
    """

    name: str
    entities: Mapping[str, str]
    features: Mapping[str, str]
    ttl: timedelta | None
    version: int = 1
    event_time: str = "event_time"
    created_time: str = "created_time"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidViewError(
                f"{self.name!r} is no name for a view: lower-case letters, digits and '_', the "
                "first a letter, 64 at most"
            )
        if self.version < 1:
            raise InvalidViewError(f"{self.name}: versions count from 1, got {self.version}")
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise InvalidViewError(f"{self.name}: ttl must be positive, got {self.ttl}")
        for what, given, allowed in (
            ("entities", self.entities, _KEY_DTYPES),
            ("features", self.features, _FEATURE_DTYPES),
        ):
            if not given:
                raise InvalidViewError(f"{self.name}: {what} is empty")
            for column, dtype in given.items():
                if dtype not in allowed:
                    raise InvalidViewError(
                        f"{self.name}: {column} is declared {dtype!r}; {what} are "
                        f"{', '.join(allowed)}"
                    )
        names = [*self.columns, self.event_time_column, self.age_column]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InvalidViewError(f"{self.name}: named twice: {', '.join(repeated)}")

    @property
    def id(self) -> str:
        """Name and version, `customer_spending:1`: the first part of every online key."""
        return f"{self.name}:{self.version}"

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that tell rows apart: keys, event time, created time."""
        return (*self.entities, self.event_time, self.created_time)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of a stored row, in order."""
        return (*self.identity, *self.features)

    @property
    def dtypes(self) -> dict[str, Any]:
        """Column → dtype of a stored row, in order."""
        times = dict.fromkeys((self.event_time, self.created_time), TIME_DTYPE)
        return {**self.entities, **times, **self.features}

    @property
    def event_time_column(self) -> str:
        """The column of an answer that says when its values were true."""
        return f"{self.name}_event_time"

    @property
    def age_column(self) -> str:
        """The column of an answer that says how old its values are."""
        return f"{self.name}_age"

    @cached_property
    def fingerprint(self) -> str:
        """Eight digits that change with the features' names, dtypes or order."""
        return hashlib.sha256(json.dumps(list(self.features.items())).encode()).hexdigest()[:8]

    def definition(self) -> dict[str, Any]:
        """The definition as JSON values, for keeping and comparing."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        seconds = None if self.ttl is None else self.ttl.total_seconds()
        # Lists of pairs, since the order of columns is part of the definition.
        pairs = {name: [list(pair) for pair in values[name].items()] for name in _MAPPINGS}
        return values | pairs | {"ttl": seconds}

    def checked_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of `frame` in canonical form: `columns`, declared dtypes, index 0, 1, 2 ….

        Columns that the view does not name are left out. Raises `FrameRefusedError` (which one
        says what is wrong) and `TypeError` for what is no DataFrame.
        """
        self._require(frame, self.columns)
        taken = {name: self._key(frame, name) for name in self.entities}
        taken |= {name: self.times(frame, name) for name in (self.event_time, self.created_time)}
        taken |= {
            name: _converted(self, frame, name, dtype, _FEATURE_DTYPES)
            for name, dtype in self.features.items()
        }
        return pd.DataFrame(taken).reset_index(drop=True)

    def checked_entities(self, frame: pd.DataFrame, time: str | None = None) -> pd.DataFrame:
        """The key columns of an entity frame, canonical, with its index.

        `time` is the column that must be there too. Raises as `checked_rows` does, and
        `ClashingColumnsError` where the answer's columns are taken.
        """
        self._require(frame, (*self.entities, *(() if time is None else (time,))))
        added = (*self.features, self.event_time_column, self.age_column)
        clashing = [name for name in added if name in frame.columns]
        if clashing:
            raise ClashingColumnsError(self.id, "the entity frame already has", clashing)
        return pd.DataFrame({name: self._key(frame, name) for name in self.entities})

    def times(self, frame: pd.DataFrame, name: str, *, floor: bool = False) -> "pd.Series[Any]":
        """The column `name` as times in UTC with microseconds, none missing.

        What is finer than that is refused, or cut off with `floor`. For the time of a question that
        loses nothing: stored times are whole microseconds, so none lies in between.
        """
        column = frame[name]
        if not is_datetime64_any_dtype(column.dtype):
            raise WrongDtypeError(self.id, f"is {column.dtype}, not a time with a zone", [name])
        if not isinstance(column.dtype, pd.DatetimeTZDtype):
            raise NaiveTimeError(
                self.id, "times without a zone; say which one with .dt.tz_localize()", [name]
            )
        missing = np.flatnonzero(column.isna())
        if len(missing):
            raise MissingTimesError(self.id, "a time is missing", [name], missing.tolist())
        exact: pd.Series[Any] = column.dt.tz_convert("UTC").dt.floor("us").dt.as_unit("us")
        if not floor and not bool((exact == column).all()):
            raise FrameRefusedError(
                self.id,
                "times finer than a microsecond; round them first, with .dt.floor('us')",
                [name],
                np.flatnonzero(exact != column).tolist(),
            )
        return exact

    def key_text(self, key: object) -> str:
        """One key as text: `17`, or `17,"DE"` where there are several entity columns.

        A key is a scalar for one entity column and a tuple in the order of `entities` for more.
        Raises `MissingKeysError` and `WrongDtypeError`.
        """
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) != len(self.entities):
            raise WrongDtypeError(
                self.id, f"a key has {len(self.entities)} parts, got {key!r}", list(self.entities)
            )
        texts = []
        for part, (name, dtype) in zip(parts, self.entities.items(), strict=True):
            if part is None or part is pd.NA or part != part:
                raise MissingKeysError(self.id, "a key is missing", [name])
            if not isinstance(part, _PYTHON_KEYS[dtype]) or isinstance(part, bool):
                raise WrongDtypeError(self.id, f"{part!r} is no {dtype} key", [name])
            texts.append(json.dumps(part, ensure_ascii=False) if dtype == "str" else str(part))
        return ",".join(texts)

    def _key(self, frame: pd.DataFrame, name: str) -> "pd.Series[Any]":
        missing = np.flatnonzero(frame[name].isna())
        if len(missing):
            raise MissingKeysError(self.id, "a key is missing", [name], missing.tolist())
        return _converted(self, frame, name, self.entities[name], _KEY_DTYPES)

    def _require(self, frame: pd.DataFrame, names: Sequence[str]) -> None:
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"{self.id}: expected a DataFrame, got {type(frame).__name__}")
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise MissingColumnsError(self.id, "columns are missing", missing)
        twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
        if twice:
            raise FrameRefusedError(self.id, "columns appear twice", twice)


_MAPPINGS = ("entities", "features")


def _converted(
    view: FeatureView,
    frame: pd.DataFrame,
    name: str,
    dtype: str,
    accepted: Mapping[str, tuple[str, ...]],
) -> "pd.Series[Any]":
    column = frame[name]
    if str(column.dtype) not in accepted[dtype]:
        raise WrongDtypeError(
            view.id, f"is {column.dtype}, and the view declares {dtype}, for", [name]
        )
    return column.astype(cast(Any, dtype))
