"""The offline side of one view: every row ever ingested, as immutable Parquet versions.

Each ingest that brings something new is one version (`FeatureVersions`): published in one step, or
not at all. Rows are facts with an identity, (key, event time, created time): the same row again
changes nothing, so a job that is run twice, or a backfill that overlaps, needs no care; another
value under the same identity is refused, because a correction is a new fact with a later created
time.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from companion.features.errors import StoreBusyError
from companion.features.store.errors import ConflictingRowsError, ViewConflictError
from companion.features.store.point_in_time import Timeline
from companion.features.store.view import FeatureView
from companion.features.versions import FeatureVersions
from companion.storage import write_text

_LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Ingested:
    """What an ingest did: `new_rows` were stored as `version`, `repeated_rows` were there already.

    `version` is `None` where nothing was new.
    """

    version: str | None
    new_rows: int
    repeated_rows: int


class History:
    """All rows of `view`, under `root/<name>/<version>`.

    Safe with any number of processes of one machine. Raises `ViewConflictError` where the folder
    belongs to another definition of the view.
    """

    def __init__(self, root: Path, view: FeatureView) -> None:
        self._view = view
        self._folder = root / view.name / str(view.version)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._versions = FeatureVersions(self._folder / "rows")
        self._loaded: tuple[list[str], pd.DataFrame] = ([], _no_rows(view))
        self._timeline = Timeline(view, self._loaded[1])
        with self._locked():
            self._keep_definition()

    def ingest(self, frame: pd.DataFrame) -> Ingested:
        """Store the rows of `frame` that are not there yet, all or none.

        Raises `FrameRefusedError` (of some kind), `StoreBusyError`.
        """
        rows = self._view.checked_rows(frame)
        with self._locked():
            new = self._new_among(rows)
            if new.empty:
                return Ingested(None, 0, len(rows))
            meta = self._versions.save(new, ids=self._view.identity)
        return Ingested(meta.version, len(new), len(rows) - len(new))

    def timeline(self) -> Timeline:
        """All rows that are published now; kept in memory until there are more.

        Raises `CorruptVersionError` for a version that is not as it was saved.
        """
        rows = self._rows()
        timeline = self._timeline
        if timeline.rows is not rows:
            timeline = self._timeline = Timeline(self._view, rows)
        return timeline

    def _rows(self) -> pd.DataFrame:
        names = [meta.version for meta in reversed(self._versions.versions())]
        known, rows = self._loaded
        if names != known:
            # Versions never change and come in order, so what was loaded stays.
            kept = [rows] if known and names[: len(known)] == known else []
            new = names[len(known) :] if kept else names
            frames = [*kept, *(self._versions.load(name).frame for name in new)]
            rows = pd.concat(frames or [_no_rows(self._view)], ignore_index=True)
            self._loaded = (names, rows)
        return rows

    def _new_among(self, rows: pd.DataFrame) -> pd.DataFrame:
        view = self._view
        there = self._rows()
        if len(rows):
            event = view.event_time
            there = there[there[event].between(rows[event].min(), rows[event].max())]
        both = pd.concat([there, rows], ignore_index=True)
        identity = list(view.identity)
        shared = both[both.duplicated(identity, keep=False)]
        # Within one identity all earlier rows are equal, or one of them had been refused here.
        repeated = shared.duplicated()
        conflicts = shared.index[shared.duplicated(identity) & ~repeated]
        if len(conflicts):
            raise ConflictingRowsError(
                view.id,
                "other values for a key, event time and created time that are taken; a correction "
                "has a later created time",
                identity,
                (conflicts - len(there)).tolist(),
            )
        return rows.drop(index=shared.index[repeated] - len(there)).reset_index(drop=True)

    def _keep_definition(self) -> None:
        path = self._folder / "view.json"
        wanted = self._view.definition()
        if not path.exists():
            write_text(path, json.dumps(wanted, indent=2) + "\n")
            return
        kept = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in wanted.items() if kept.get(name) != value]
        if changed:
            raise ViewConflictError(self._view.id, changed)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._folder / ".lock", timeout=_LOCK_SECONDS, poll_interval=0.01)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreBusyError(self._folder, _LOCK_SECONDS) from error
        try:
            yield
        finally:
            lock.release()


def _no_rows(view: FeatureView) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=view.dtypes[name]) for name in view.columns})
