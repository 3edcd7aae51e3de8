"""What a batch job is: its record, its states, and what passes between a worker and the store.

A job is a row in a store, never an object in a process, since a process can die at any line. The
states are few:

    queued ──claim──▶ running ──last row──▶ done
      ▲                 │ ├──refused, or tried too often──▶ failed
      └──lease ran out──┘ └──cancel (from queued too)─────▶ cancelled

A worker has a job for as long as its *lease* says (Gray and Cheriton, "Leases", SOSP 1989), and
proves with every write that it is still the one that has it, by a *fencing token*: a number that
grows with each claim, checked by the store (Kleppmann, *Designing Data-Intensive Applications*,
ch. 8). A clock alone cannot do that: a worker that was stopped for a minute does not know it.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Kind = Literal["csv", "parquet"]

_TRACEBACK_CHARACTERS = 8_000


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended: the error's `type`, its `message`, and the `traceback` for operators.

    The type stands by itself because messages do not: `str(KeyError("amount"))` is `'amount'`, and
    that of an `AssertionError` is empty.
    """

    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What `error` says, its traceback from the end where it is long."""
        lines = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), lines[-_TRACEBACK_CHARACTERS:])


@dataclass(frozen=True)
class Job:
    """A job as the store had it at one moment; times are seconds since 1970 by the store's clock.

    `rows` is how many rows the file has (None until a worker has read it). `next_row` is the
    checkpoint: the rows before it are `scored` or `rejected`, and stored. `attempts` counts all
    claims, `tries` those since the checkpoint last moved. `error` is that of the last attempt that
    ended in one.
    """

    id: str
    owner: str
    key: str | None
    state: JobState
    kind: Kind
    bytes: int
    sha256: str
    rows: int | None
    next_row: int
    scored: int
    rejected: int
    attempts: int
    tries: int
    worker: str | None
    token: int
    lease_until: float | None
    created_at: float
    updated_at: float
    started_at: float | None
    finished_at: float | None
    error: Failure | None

    @property
    def progress(self) -> float:
        """The share of rows behind the checkpoint, 0 to 1."""
        if self.state is JobState.DONE:
            return 1.0
        return (self.next_row - 1) / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class NewJob:
    """What a job begins with; the file itself stands on the disk under `id` by then."""

    id: str
    kind: Kind
    bytes: int
    sha256: str
    owner: str = ""
    key: str | None = None


@dataclass(frozen=True)
class Claim:
    """The right to work on `job`: `token` proves it, for `lease` seconds after each write."""

    job: Job
    token: int
    lease: float

    @property
    def id(self) -> str:
        return self.job.id


@dataclass(frozen=True)
class Reject:
    """A row that has no score, and why; rows count from 1, the header of a CSV is none."""

    row: int
    reason: str


@dataclass(frozen=True)
class Part:
    """What becomes of the rows from `first` up to, not including, `end`: stored whole or not.

    `payload` holds the `scored` results (see `companion.serving.jobs.results`), `rejects` those of
    the `rejected` rows that are told one by one; of many, only the first are.
    """

    first: int
    end: int
    scored: int
    payload: bytes
    rejected: int
    rejects: Sequence[Reject]
