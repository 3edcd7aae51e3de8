"""The door to batch jobs: submit a file, ask how far it is, get results and rejects, cancel.

A job is accepted when its file is synced to the disk and its row is in the store, in that order,
and only then is anybody told. Whatever dies afterwards, a worker finds the row; whatever dies
before, nobody was promised anything.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from companion.serving.jobs.errors import JobsUnavailableError, UnknownJobError
from companion.serving.jobs.homes import JobsHome, open_home
from companion.serving.jobs.job import Job, Kind, NewJob, Reject
from companion.serving.jobs.results import as_table
from companion.serving.jobs.uploads import Upload, Uploads

MAX_BYTES = 256 << 20
MAX_ROWS = 2_000_000
MOST_REJECTS = 10_000


@dataclass(frozen=True)
class Submitted:
    """A job, and whether this submission made it or found it by its idempotency key."""

    job: Job
    created: bool


class Jobs:
    """All jobs of one store, and the files that belong to them.

    `max_rows` is how many rows a file may have, `most_rejects` of how many bad rows a job keeps
    the reason; the others are counted.
    """

    def __init__(
        self,
        home: JobsHome,
        uploads: Uploads,
        *,
        max_rows: int = MAX_ROWS,
        most_rejects: int = MOST_REJECTS,
    ) -> None:
        self.home = home
        self.uploads = uploads
        self.max_rows = max_rows
        self.most_rejects = most_rejects

    def submit(
        self,
        file: str | os.PathLike[str],
        *,
        kind: Kind | None = None,
        owner: str = "",
        key: str | None = None,
    ) -> Job:
        """Store a copy of `file` as a job; its `kind` is that of its name unless given.

        With an idempotency `key`, the job that was submitted with it before (by this `owner`, with
        the same file) is given back instead.

        Raises `UploadError`, `IdempotencyConflictError`, `JobsUnavailableError`, `OSError`.
        """
        source = Path(file)
        guessed: Kind = "parquet" if source.suffix in (".parquet", ".pq") else "csv"
        with self.begin_upload(kind or guessed) as upload, source.open("rb") as data:
            shutil.copyfileobj(data, upload, 1 << 20)
            return self.accept(upload, owner=owner, key=key).job

    def begin_upload(self, kind: Kind) -> Upload:
        """An upload to write to, in a `with` block, and then to `accept`."""
        return self.uploads.begin(kind)

    def accept(self, upload: Upload, *, owner: str = "", key: str | None = None) -> Submitted:
        """Make a job of a finished upload; raises as `submit`."""
        new = NewJob(uuid.uuid4().hex, upload.kind, upload.bytes, upload.sha256, owner, key)
        upload.keep(new.id)
        try:
            job, created = self.home.insert(new)
        except JobsUnavailableError:
            raise  # the row may be there after all, so its file stays; `sweep` finds out
        except BaseException:
            self.uploads.remove(new.id)
            raise
        if not created:
            self.uploads.remove(new.id)
        return Submitted(job, created)

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job as it is now. Raises `UnknownJobError`, also where it is not `owner`'s."""
        job = self.home.get(job_id)
        if owner is not None and job.owner != owner:
            raise UnknownJobError(job_id)
        return job

    def latest(self, count: int = 20) -> list[Job]:
        """The last `count` jobs, the newest first."""
        return self.home.latest(count)

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what has been scored of it stays. Raises `UnknownJobError`."""
        job = self.home.cancel(job_id)
        if job.state.final:
            self.uploads.remove(job_id)
        return job

    def results(self, job_id: str) -> pa.Table:
        """row, transaction_id, probability of what has been scored so far, in order of rows."""
        return as_table(self.payloads(job_id))

    def payloads(self, job_id: str) -> Iterator[bytes]:
        """The same in encoded parts, for what is too large (`companion.serving.jobs.results`)."""
        return self.home.payloads(job_id)

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """The bad rows, the first `most_rejects` that were found, in order of rows."""
        return self.home.rejects(job_id)

    def sweep(self, *, older_than: float = 86_400.0, clock: Callable[[], float] = time.time) -> int:
        """Remove files that belong to no job, `older_than` seconds old; how many that were."""
        removed = self.uploads.sweep(older_than=older_than, clock=clock)
        for path in self.uploads.settled(older_than=older_than, clock=clock):
            try:
                self.home.get(path.name)
            except UnknownJobError:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def forget(self, *, older_than: float) -> int:
        """Delete jobs, results and rejects that have been over for `older_than` seconds."""
        return len(self.home.forget(older_than))

    def close(self) -> None:
        """Give this thread's connection back."""
        self.home.close()


def open_jobs(
    url: str,
    *,
    uploads: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_BYTES,
    max_rows: int = MAX_ROWS,
    most_rejects: int = MOST_REJECTS,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.time,
) -> Jobs:
    """The jobs in `sqlite:///file.db` or `postgresql://…`.

    `uploads` is the folder for what clients send; beside an SQLite file it is made by default
    (`file.db.uploads`), with a server it has to be given, and seen by all machines that work.
    `timeout` is how many seconds a server may take to answer.

    Raises `ValueError`, `JobsUnavailableError`, and what opening an SQLite file raises.
    """
    home = open_home(url, timeout=timeout, clock=clock)
    if uploads is None:
        if not url.startswith("sqlite:"):
            raise ValueError(f"{home.name} needs a folder for uploads that all workers see")
        uploads = f"{url.partition('///')[2]}.uploads"
    return Jobs(
        home,
        Uploads(Path(uploads), max_bytes=max_bytes),
        max_rows=max_rows,
        most_rejects=most_rejects,
    )
