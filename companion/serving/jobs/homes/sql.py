"""What both homes do: the statements, in transactions that the home provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from companion.serving.jobs.errors import (
    IdempotencyConflictError,
    LeaseLostError,
    UnknownJobError,
)
from companion.serving.jobs.homes import statements
from companion.serving.jobs.job import (
    Claim,
    Failure,
    Job,
    JobState,
    Kind,
    NewJob,
    Part,
    Reject,
)

Rows = list[Mapping[str, Any]]
_REJECTS_AT_ONCE = 1_000


class Session(Protocol):
    """One open transaction."""

    def run(self, statement: str, /, **values: Any) -> Rows:
        """What `statement` returns; `:name` stands for a value, `:now` for the store's clock."""
        ...

    def run_many(self, statement: str, values: Sequence[Mapping[str, Any]], /) -> None: ...


class SqlHome:
    """A `JobsHome` over `transaction()`: everything in its block is stored, or nothing."""

    def __init__(
        self, name: str, transaction: Callable[[], AbstractContextManager[Session]]
    ) -> None:
        self.name = name
        self._transaction = transaction

    def now(self) -> float:
        """The store's clock: seconds since 1970."""
        return float(self._one(statements.CLOCK)[0]["now"])

    def insert(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job, or find the one that has its key already; whether it is new."""
        with self._transaction() as session:
            made = session.run(
                statements.INSERT,
                id=new.id,
                owner=new.owner,
                key=new.key,
                kind=new.kind,
                bytes=new.bytes,
                sha256=new.sha256,
            )
            there = made or session.run(statements.BY_KEY, owner=new.owner, key=new.key)
        job = _job(there[0])
        if not made and (job.sha256, job.kind) != (new.sha256, new.kind):
            raise IdempotencyConflictError(str(new.key), job.id)
        return job, bool(made)

    def get(self, job_id: str) -> Job:
        """The job as it is now; raises `UnknownJobError`."""
        rows = self._one(statements.GET, id=job_id)
        if not rows:
            raise UnknownJobError(job_id)
        return _job(rows[0])

    def latest(self, count: int) -> list[Job]:
        """The last `count` jobs that were inserted, the newest first."""
        return [_job(row) for row in self._one(statements.LATEST, count=count)]

    def claim(
        self, worker: str, *, lease: float, max_tries: int, job_id: str | None = None
    ) -> Claim | None:
        """The oldest job that is free, or `job_id` if it is; None where there is none."""
        which = statements.CLAIM_NEXT if job_id is None else statements.CLAIM_ONE
        named = {} if job_id is None else {"id": job_id}
        with self._transaction() as session:
            session.run(statements.GIVE_UP, max_tries=max_tries)
            rows = session.run(which, worker=worker, lease=lease, **named)
        if not rows:
            return None
        job = _job(rows[0])
        return Claim(job, job.token, lease)

    def renew(self, claim: Claim) -> Job:
        """The lease from now on."""
        with self._transaction() as session:
            return self._mine(session, statements.RENEW, claim, lease=claim.lease)

    def commit(self, claim: Claim, part: Part, *, rows: int, most_rejects: int) -> Job:
        """Results, rejects (up to `most_rejects` of the job) and the checkpoint, in one step."""
        with self._transaction() as session:
            before = session.run(statements.GET, id=claim.id)
            kept = before[0]["rejects_kept"] if before else 0
            told = part.rejects[: max(0, most_rejects - kept)]
            job = self._mine(
                session,
                statements.CHECKPOINT,
                claim,
                first=part.first,
                end=part.end,
                scored=part.scored,
                rejected=part.rejected,
                kept=len(told),
                rows=rows,
                lease=claim.lease,
            )
            if part.scored:
                session.run(
                    statements.ADD_PART, id=claim.id, first=part.first, payload=part.payload
                )
            session.run_many(
                statements.ADD_REJECT,
                [{"id": claim.id, "row": one.row, "reason": one.reason} for one in told],
            )
        return job

    def finish(self, claim: Claim, *, rows: int) -> Job:
        """All `rows` are behind the checkpoint: the job is done."""
        with self._transaction() as session:
            return self._mine(session, statements.FINISH, claim, rows=rows)

    def fail(self, claim: Claim, failure: Failure, *, pause: float | None) -> Job:
        """The attempt ended in `failure`: to be tried again after `pause` seconds, or never."""
        told = {
            "error_type": failure.type,
            "error_message": failure.message,
            "error_traceback": failure.traceback,
        }
        with self._transaction() as session:
            if pause is None:
                return self._mine(session, statements.FAIL, claim, **told)
            return self._mine(session, statements.TRY_AGAIN, claim, pause=pause, **told)

    def release(self, claim: Claim) -> Job:
        """Give the job back, unharmed, as a worker does that was told to stop."""
        with self._transaction() as session:
            return self._mine(session, statements.RELEASE, claim)

    def cancel(self, job_id: str) -> Job:
        """Stop the job, whoever works on it; one that is over stays as it is."""
        rows = self._one(statements.CANCEL, id=job_id)
        return _job(rows[0]) if rows else self.get(job_id)

    def payloads(self, job_id: str) -> Iterator[bytes]:
        """The results, part by part in the order of rows."""
        # A transaction for each part: a client that reads slowly keeps nothing open.
        after = 0
        while rows := self._one(statements.PART_AFTER, id=job_id, after=after):
            after = rows[0]["first_row"]
            yield bytes(rows[0]["payload"])

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """The rejects that were kept, in the order of rows."""
        after = 0
        while rows := self._one(
            statements.REJECTS_AFTER, id=job_id, after=after, count=_REJECTS_AT_ONCE
        ):
            after = rows[-1]["row_number"]
            yield from (Reject(row["row_number"], row["reason"]) for row in rows)

    def forget(self, older_than: float) -> list[Job]:
        """Delete what has been over for more than `older_than` seconds; what that was."""
        return [_job(row) for row in self._one(statements.FORGET, older_than=older_than)]

    def _one(self, statement: str, **values: Any) -> Rows:
        with self._transaction() as session:
            return session.run(statement, **values)

    @staticmethod
    def _mine(session: Session, statement: str, claim: Claim, **values: Any) -> Job:
        """Run what only the holder of the token may; raises `LeaseLostError`."""
        rows = session.run(statement, id=claim.id, token=claim.token, **values)
        if not rows:
            raise LeaseLostError(claim.id, claim.token)
        return _job(rows[0])


def _job(row: Mapping[str, Any]) -> Job:
    error = None
    if row["error_type"] is not None:
        error = Failure(row["error_type"], row["error_message"], row["error_traceback"])
    return Job(
        id=row["id"],
        owner=row["owner"],
        key=row["idempotency_key"],
        state=JobState(row["state"]),
        kind=cast("Kind", row["kind"]),
        bytes=row["bytes"],
        sha256=row["sha256"],
        rows=row["rows_total"],
        next_row=row["next_row"],
        scored=row["scored"],
        rejected=row["rejected"],
        attempts=row["attempts"],
        tries=row["tries"],
        worker=row["worker"],
        token=row["token"],
        lease_until=row["lease_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error=error,
    )
