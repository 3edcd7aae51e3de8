"""What was known at a time: the point-in-time join, for rows that may arrive late.

A row becomes *visible* at the later of its event time and its created time: before that, either
nothing had happened or nobody had written it down. Of the visible rows of a key the one with the
latest event time counts, and of several with that event time the one created last. So, going
through the rows of a key in order of becoming visible, what is known is the running maximum by
(event time, created time), and a question about a time is a binary search for the last row that
was visible by then.

Everything is columnar: a few sorts when the timeline is built, one binary search per question, no
loop over keys.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from companion.features.store.view import FeatureView

Positions = npt.NDArray[np.int64]

UNKNOWN = -1
"""The position that stands for *no row*."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Timeline:
    """The rows of one view, prepared for questions about any time.

    `rows` are as `FeatureView.checked_rows` gives them, each (key, event time, created time) once.
    """

    def __init__(self, view: FeatureView, rows: pd.DataFrame) -> None:
        self.rows = rows
        self._keys = _Keys(rows, list(view.entities))
        event, created = (
            _microseconds(rows[name]) for name in (view.event_time, view.created_time)
        )
        visible = np.maximum(event, created)
        by_visibility = np.argsort(visible, kind="stable")
        self._ticks = visible[by_visibility]
        order = by_visibility[np.argsort(self._keys.codes[by_visibility], kind="stable")]
        self._code = self._keys.codes[order]
        self._slot = self._slots(self._code, _ranks(by_visibility)[order])
        by_precedence = np.lexsort((created, event))
        # Codes go up along `order`, so one running maximum starts anew with every key.
        best = np.maximum.accumulate(self._slots(self._code, _ranks(by_precedence)[order]))
        self._best = by_precedence[best % max(len(rows), 1)]

    def known(self, entities: pd.DataFrame, times: "pd.Series[Any]") -> Positions:
        """For each row of `entities`, the position in `rows` of what was known at its time.

        `UNKNOWN` where nothing was. Both arguments are canonical (`FeatureView.checked_entities`,
        `FeatureView.times`) and of one length.
        """
        return self._known(self._keys.find(entities), _microseconds(times))

    def latest(self, now: datetime) -> Positions:
        """The positions in `rows` of what is known at `now`, one for each key known by then."""
        codes = np.arange(self._keys.count, dtype=np.int64)
        found = self._known(codes, np.full(len(codes), (now - _EPOCH) // _MICROSECOND))
        known: Positions = found[found != UNKNOWN]
        return known

    def _known(self, codes: Positions, times: Positions) -> Positions:
        if not len(self.rows):
            return np.full(len(codes), UNKNOWN, dtype=np.int64)
        visible_by_then = np.searchsorted(self._ticks, times, side="right")
        slot = self._slots(codes, visible_by_then - 1)
        last = np.searchsorted(self._slot, slot, side="right") - 1
        # A time before the key's first row, or a key before the first, lands on another's.
        hit = (last >= 0) & (self._code[last] == codes)
        return np.where(hit, self._best[last], UNKNOWN)

    def _slots(self, codes: Positions, ranks: Positions) -> Positions:
        """One number that sorts by key, then by rank (below the number of rows)."""
        return codes * len(self.rows) + ranks


class _Keys:
    """Entity keys as dense codes 0, 1, 2 …, and a way to find them again."""

    def __init__(self, rows: pd.DataFrame, names: list[str]) -> None:
        self._levels = []
        codes = np.zeros(len(rows), dtype=np.int64)
        for name in names:
            level, distinct = pd.factorize(rows[name])
            self._levels.append((name, pd.Index(distinct)))
            codes = codes * max(len(distinct), 1) + level
        self.codes, combined = pd.factorize(codes)
        self._combined = pd.Index(combined)
        self.count = len(combined)

    def find(self, entities: pd.DataFrame) -> Positions:
        """The code of each key, `UNKNOWN` for one that no row has."""
        codes = np.zeros(len(entities), dtype=np.int64)
        known = np.ones(len(entities), dtype=bool)
        for name, distinct in self._levels:
            level = distinct.get_indexer(pd.Index(entities[name]))
            known &= level >= 0
            codes = codes * max(len(distinct), 1) + level
        found = self._combined.get_indexer(pd.Index(codes))
        return np.where(known, found, UNKNOWN)


def _ranks(order: Positions) -> Positions:
    """The place of each row in `order`."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks


def _microseconds(times: "pd.Series[Any]") -> Positions:
    return times.to_numpy(dtype="datetime64[us]").astype(np.int64)
