"""Where a study lives: in memory, or in a database that several workers share.

With a database every running trial has a heartbeat. When it stops, because its worker was killed,
Optuna marks the trial as failed before the next one begins, and the callback here puts the same
parameters back into the queue, up to `MOST_RETRIES` times.

SQLite is told to take its write lock when a transaction *begins*. Otherwise two workers that have
both read and now both want to write stand in each other's way, and one of them fails at once,
whatever the time-out (SQLite documentation, "Transaction", 2.2). For more than a handful of workers
PostgreSQL is the better home.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

HEARTBEAT_SECONDS = 10
MOST_RETRIES = 3
_LOCK_SECONDS = 60
_CREATION_TRIES = 5


def open_storage(home: str | Path, *, heartbeat: int = HEARTBEAT_SECONDS) -> RDBStorage:
    """The database at `home`: a path (SQLite), or a URL `sqlite:///…` or `postgresql://…`.

    A trial counts as lost when it has not been heard of for three times `heartbeat` (whole seconds,
    at least 1). Tables are made where there are none. Raises `ValueError` for a heartbeat below 1,
    SQLAlchemy's own errors where the database cannot be opened.
    """
    url = _url(home)
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": _LOCK_SECONDS}}
    storage = _created(url, options, heartbeat)
    if url.startswith("sqlite"):
        sqlalchemy.event.listen(storage.engine, "connect", _leave_transactions_to_us)
        sqlalchemy.event.listen(storage.engine, "begin", _take_the_write_lock)
        storage.engine.dispose()  # connections made so far know nothing of this
    return storage


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Optuna's log and its notes on experimental parts out of the block's output."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _url(home: str | Path) -> str:
    if isinstance(home, Path) or "://" not in home:
        return f"sqlite:///{Path(home).absolute()}"
    scheme, separator, rest = home.partition("://")
    driver = "postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme
    return driver + separator + rest


def _created(url: str, options: dict[str, Any], heartbeat: int) -> RDBStorage:
    # Workers that start together all find no tables and all make them: the losers look again.
    for last in range(_CREATION_TRIES - 1, -1, -1):
        try:
            with quietly():
                return RDBStorage(
                    url,
                    engine_kwargs=dict(options),
                    heartbeat_interval=heartbeat,
                    grace_period=3 * heartbeat,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MOST_RETRIES),
                )
        except (OperationalError, ProgrammingError, IntegrityError):
            if not last:
                raise
    raise AssertionError("unreachable")  # pragma: no cover


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _take_the_write_lock(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def numbers_with_heartbeat(study: optuna.Study) -> frozenset[int] | None:
    """Which trials of `study` ever had a heartbeat; None where its storage keeps none."""
    storage = getattr(study._storage, "_backend", study._storage)  # under Optuna's own cache
    if not isinstance(storage, RDBStorage) or storage.get_heartbeat_interval() is None:
        return None
    query = sqlalchemy.text(
        "SELECT trials.number FROM trials JOIN trial_heartbeats USING (trial_id) "
        "WHERE trials.study_id = :study"
    )
    with storage.engine.connect() as connection:
        return frozenset(connection.execute(query, {"study": study._study_id}).scalars())
