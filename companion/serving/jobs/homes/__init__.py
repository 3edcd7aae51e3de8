"""Where jobs live: one SQLite file for the processes of one machine, or PostgreSQL for many.

A home knows jobs, not files and not models. Both speak the same statements
(`companion.serving.jobs.homes.statements`), and one test-suite holds both to the same promises:

- a job that was inserted is there, whatever happens to whoever inserted it;
- of any number of claimers exactly one gets a job, and nobody else until its lease has run out;
- results, rejects and checkpoint are stored together or not at all;
- who does not hold the present token changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from companion.serving.jobs.job import Claim, Failure, Job, NewJob, Part, Reject


class JobsHome(Protocol):
    """One store of jobs; `name` is what errors call it (never a password in it).

    Any thread may use it. Every method raises `JobsUnavailableError` where the store does not
    answer, and those that take a claim raise `LeaseLostError` where it has been lost.
    """

    @property
    def name(self) -> str: ...

    def now(self) -> float:
        """The store's clock: seconds since 1970."""
        ...

    def insert(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job, or find the one that has its key already; whether it is new.

        Raises `IdempotencyConflictError` where that one has another file.
        """
        ...

    def get(self, job_id: str) -> Job:
        """Raises `UnknownJobError`."""
        ...

    def latest(self, count: int) -> list[Job]:
        """The last `count` jobs that were inserted, the newest first."""
        ...

    def claim(
        self, worker: str, *, lease: float, max_tries: int, job_id: str | None = None
    ) -> Claim | None:
        """The oldest job that is free, or `job_id` if it is; None where there is none.

        Free is what is queued (and whose pause after a failure is over), and what is running
        under a lease that ran out. What ran out `max_tries` times without getting anywhere fails.
        """
        ...

    def renew(self, claim: Claim) -> Job:
        """The lease from now on."""
        ...

    def commit(self, claim: Claim, part: Part, *, rows: int, most_rejects: int) -> Job:
        """Results, rejects (up to `most_rejects` of the job) and the checkpoint, in one step.

        Renews the lease. Raises `LeaseLostError` also where the checkpoint is not `part.first`.
        """
        ...

    def finish(self, claim: Claim, *, rows: int) -> Job:
        """All `rows` are behind the checkpoint: the job is done."""
        ...

    def fail(self, claim: Claim, failure: Failure, *, pause: float | None) -> Job:
        """The attempt ended in `failure`: to be tried again after `pause` seconds, or never."""
        ...

    def release(self, claim: Claim) -> Job:
        """Give the job back, unharmed, as a worker does that was told to stop."""
        ...

    def cancel(self, job_id: str) -> Job:
        """Stop the job, whoever works on it; one that is over stays as it is.

        Raises `UnknownJobError`.
        """
        ...

    def payloads(self, job_id: str) -> Iterator[bytes]:
        """The results, part by part in the order of rows."""
        ...

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """The rejects that were kept, in the order of rows."""
        ...

    def forget(self, older_than: float) -> list[Job]:
        """Delete what has been over for more than `older_than` seconds; what that was."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def open_home(
    url: str, *, timeout: float = 10.0, clock: Callable[[], float] = time.time
) -> JobsHome:
    """The home behind `url`: `sqlite:///file.db`, or `postgresql://…`.

    `timeout` is how many seconds a server may take to answer. `clock` (seconds since 1970, the same
    for all processes) is SQLite's; a server has its own.

    Raises `ValueError` for any other, what opening an SQLite file raises, and
    `JobsUnavailableError`.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.startswith("///") and len(rest) > 3:
        from companion.serving.jobs.homes.sqlite import SqliteHome

        return SqliteHome(Path(rest[3:]), clock=clock)
    if scheme in ("postgresql", "postgres"):
        from companion.serving.jobs.homes.postgresql import PostgresqlHome

        return PostgresqlHome(url, timeout=timeout)
    raise ValueError(f"no home of jobs for {scheme!r}: sqlite:///file.db, postgresql://…")
