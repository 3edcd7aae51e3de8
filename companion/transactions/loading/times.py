"""When a transaction was: any clock's writing of it, turned into UTC or refused.

ISO 8601 is read as it stands; a bare number is a count of seconds or milliseconds and somebody has
to say which; 05/01 is January or May. A local time without its zone is no time at all, and with
it there are two holes a year: the hour that the clocks skip in spring (no such time was on any
clock) and the hour that they run through twice in autumn (two moments with one name).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from companion.transactions.loading.errors import OptionError, did_you_mean
from companion.transactions.loading.values import Column, as_mask

Ambiguous = Literal["refuse", "earlier", "later"]
UTC_TIME: Literal["datetime64[us, UTC]"] = "datetime64[us, UTC]"
Moments: TypeAlias = "pd.Series[pd.Timestamp]"
Mask: TypeAlias = NDArray[np.bool_]

EPOCH_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_COUNT = r"^-?\d+(\.\d+)?$"
_DAY = r"\d{4}-\d\d-\d\d"
_ZONE = r"(Z|z|[+-]\d\d(:?\d\d)?)"
_ISO = rf"^{_DAY}([T ]\d\d:\d\d(:\d\d(\.\d+)?)?{_ZONE}?)?$"
_ZONED = rf"^{_DAY}[T ][\d:.]+{_ZONE}$"
_SPELLED_UTC = r" ?UTC$"
_EARLIEST, _LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")


@dataclass(frozen=True)
class TimeWriting:
    """How the file writes its times; see `load` for what the three mean."""

    time_format: str | None
    zone: ZoneInfo | None
    ambiguous: Ambiguous


def time_writing(
    time_format: str | None, timezone: str | None, ambiguous: Ambiguous
) -> TimeWriting:
    """The three arguments of `load` about time, once they can be meant; else `OptionError`."""
    if time_format is not None and time_format not in EPOCH_MICROSECONDS and "%" not in time_format:
        raise OptionError(
            f"time_format={time_format!r}: it is 's', 'ms', 'us' or 'ns' for a count since 1970, "
            "or a pattern such as '%d.%m.%Y %H:%M'; ISO 8601 needs none"
        )
    if ambiguous not in ("refuse", "earlier", "later"):
        raise OptionError(f"ambiguous={ambiguous!r}: it is 'refuse', 'earlier' or 'later'")
    try:
        zone = None if timezone is None else ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = did_you_mean(timezone or "", sorted(available_timezones()))
        raise OptionError(f"there is no time zone {timezone!r}{near}") from error
    return TimeWriting(time_format, zone, ambiguous)


def as_times(column: Column, writing: TimeWriting, *, gaps: bool = False) -> Moments:
    """The moments as datetime64[us, UTC]; with `gaps`, a row that says nothing is NaT.

    Raises `ValueInFileError` for rows that are no time, whose zone nobody states, that no clock of
    the zone ever showed, that it showed twice (unless `ambiguous` says which), or that lie outside
    1990–2100, where a wrong unit puts them.
    """
    missing = column.missing()
    if not gaps:
        column.refuse_if(missing, "{count} without a time")
    if missing.all():
        return pd.Series(pd.NaT, index=range(len(missing)), dtype=UTC_TIME)
    stated = ~missing
    if column.is_text:
        moments = _from_text(column, stated, writing)
    elif column.is_number:
        moments = _from_counts(column, stated, writing.time_format)
    elif pa.types.is_timestamp(column.values.type) or pa.types.is_date(column.values.type):
        moments = _from_timestamps(column, stated, writing)
    else:
        column.refuse(stated, f"{{count}} of type {column.values.type}, not times")
    column.refuse_if(
        as_bool((moments < _EARLIEST) | (moments >= _LATEST)),
        "{count} before 1990 or after 2099: is the unit of time_format the right one?",
    )
    return moments


def _from_text(column: Column, stated: Mask, writing: TimeWriting) -> Moments:
    counts = as_mask(pc.match_substring_regex(column.values, _COUNT)) & stated
    if writing.time_format in EPOCH_MICROSECONDS:
        column.refuse_if(
            stated & ~counts,
            f"{{count}} with no number, but with time_format={writing.time_format!r}",
        )
        return _from_counts(column, stated, writing.time_format)
    if writing.time_format is not None:
        return _from_pattern(column, stated, writing.time_format, writing)
    if counts.any():
        _refuse_bare_counts(column, counts)
    text = pc.replace_substring_regex(column.values, _SPELLED_UTC, "Z")
    column.refuse_if(
        stated & ~as_mask(pc.match_substring_regex(text, _ISO)),
        "{count} with no ISO 8601 time such as 2024-05-31T14:03:22+02:00 (state another "
        "writing, as in time_format='%d.%m.%Y %H:%M')",
    )
    zoned = as_mask(pc.match_substring_regex(text, _ZONED))
    if zoned.any():
        column.refuse_if(
            stated & ~zoned, "{count} without an offset from UTC, while other rows have one"
        )
    read = pd.to_datetime(
        text.to_pandas(), format="ISO8601", errors="coerce", utc=bool(zoned.any())
    )
    column.refuse_if(
        stated & as_bool(read.isna()), "{count} with a time that no calendar or clock has"
    )
    return in_utc(read) if zoned.any() else _localized(column, read, stated, writing)


def _from_pattern(column: Column, stated: Mask, pattern: str, writing: TimeWriting) -> Moments:
    zoned = "%z" in pattern
    try:
        read = pd.to_datetime(column.values.to_pandas(), format=pattern, errors="coerce", utc=zoned)
    except ValueError as error:
        raise OptionError(f"time_format={pattern!r}: {error}") from error
    column.refuse_if(stated & as_bool(read.isna()), f"{{count}} not written as {pattern!r}")
    return in_utc(read) if zoned else _localized(column, read, stated, writing)


def _from_counts(column: Column, stated: Mask, time_format: str | None) -> Moments:
    if time_format is None or time_format not in EPOCH_MICROSECONDS:
        _refuse_bare_counts(column, stated)
    told = pc.if_else(pa.array(stated), column.values, None)
    counts = pc.cast(told, pa.float64(), safe=False).to_numpy()
    microseconds = np.rint(counts * EPOCH_MICROSECONDS[time_format])
    # What lies beyond int64 cannot be cast; any number far outside 1990–2100 tells the same.
    whole = np.where(stated, np.clip(microseconds, -4e18, 4e18), 0).astype("int64")
    moments = pd.Series(whole.view("datetime64[us]")).dt.tz_localize("UTC")
    return in_utc(moments.where(stated))


def _refuse_bare_counts(column: Column, counts: Mask) -> NoReturn:
    first = float(column.values[int(np.flatnonzero(counts)[0])].as_py())
    meanings = [
        f"time_format={unit!r} would make the first one {moment:%Y-%m-%d}"
        for unit, factor in EPOCH_MICROSECONDS.items()
        if abs(first * factor) < _LATEST.timestamp() * 1e6
        and (moment := pd.Timestamp(int(first * factor), unit="us", tz="UTC")) >= _EARLIEST
    ]
    hint = "; ".join(meanings) or "as in time_format='s' for seconds since 1970"
    column.refuse(counts, f"{{count}} with a bare number, whose unit nobody stated ({hint})")


def _from_timestamps(column: Column, stated: Mask, writing: TimeWriting) -> Moments:
    zone = getattr(column.values.type, "tz", None)
    # To microseconds, as everywhere here: what is finer is cut off.
    stamps = pc.cast(column.values, pa.timestamp("us", tz=zone), safe=False)
    if zone is None:
        return _localized(column, stamps.to_pandas(), stated, writing)
    return in_utc(stamps.to_pandas())


def _localized(column: Column, local: Moments, stated: Mask, writing: TimeWriting) -> Moments:
    zone = writing.zone
    if zone is None:
        column.refuse(
            stated,
            "{count} with a local time and no zone; state it, as in timezone='Europe/Berlin' or "
            "timezone='UTC' (a zone with summer time skips an hour in spring and repeats one in "
            "autumn: better to write UTC in the first place)",
        )
    first_of_two = np.full(len(local), writing.ambiguous != "later")
    moments = local.dt.tz_localize(zone, ambiguous=first_of_two, nonexistent="NaT")
    column.refuse_if(
        stated & as_bool(moments.isna()),
        f"{{count}} with a time that no clock in {zone.key} showed: it was skipped when summer "
        "time began (is the zone the right one? are these times UTC already?)",
    )
    if writing.ambiguous == "refuse":
        single = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        column.refuse_if(
            stated & as_bool(single.isna()),
            f"{{count}} with a time that clocks in {zone.key} showed twice, when summer time "
            "ended; write the offset or UTC, or choose with ambiguous='earlier' or 'later'",
        )
    return in_utc(moments)


def in_utc(moments: Moments) -> Moments:
    """The same moments as datetime64[us, UTC]."""
    return moments.dt.tz_convert("UTC").dt.as_unit("us")


def as_bool(mask: pd.Series[bool]) -> Mask:
    """A pandas mask as numpy."""
    return mask.to_numpy(dtype=bool)
