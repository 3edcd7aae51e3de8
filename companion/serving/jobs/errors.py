"""The named ways in which a batch job is refused, lost or broken; each carries what to react to.

Three families. `JobError` is about the store: no such job, a lease that is not yours any more, a
store that does not answer. `UploadError` is about what was sent, while it is being sent. And
`BatchRefusedError` is about the file, found out by the worker that reads it: trying again would
find out the same, so such a job fails at once.
"""

from __future__ import annotations

from collections.abc import Sequence


class JobError(Exception):
    """Base of what the job store raises by itself."""


class UnknownJobError(JobError, LookupError):
    """There is no job `job_id`, or it belongs to somebody else (which nobody else is told)."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class IdempotencyConflictError(JobError):
    """The idempotency key of this upload was used before, for `job_id`, with another file."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(f"the idempotency key {key!r} was used for another file, as job {job_id}")
        self.key = key
        self.job_id = job_id


class LeaseLostError(JobError):
    """`token` is not the job's present one: it was cancelled, or another worker has it by now.

    Nothing of the refused write was stored. The work must be dropped, not tried again.
    """

    def __init__(self, job_id: str, token: int) -> None:
        super().__init__(f"the lease with token {token} on job {job_id} is lost")
        self.job_id = job_id
        self.token = token


class JobsUnavailableError(JobError):
    """The store `home` does not answer; nothing was stored, or it is not known whether it was."""

    def __init__(self, home: str, reason: str) -> None:
        super().__init__(f"{home} does not answer: {reason}")
        self.home = home


class UploadError(Exception):
    """Base of what is wrong with an upload while it arrives; nothing of it stays on the disk."""


class TooLargeError(UploadError):
    """The upload has more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the file has more than {limit:,} bytes")
        self.limit = limit


class WrongFormatError(UploadError):
    """The first bytes are not those of a file of `kind`."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(f"the file was announced as {kind} and is {found}")
        self.kind = kind
        self.found = found


class BatchRefusedError(Exception):
    """Base of what is wrong with a whole file; the job that has it fails without another try."""


class UnreadableFileError(BatchRefusedError):
    """The file cannot be read as what it was announced to be."""


class TooManyRowsError(BatchRefusedError):
    """The file has more rows, or decodes to more bytes, than `limit`."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"the file has more than {limit:,} {what}")
        self.limit = limit


class MissingColumnsError(BatchRefusedError):
    """The file lacks `columns`."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(f"the file lacks the columns {', '.join(columns)}")
        self.columns = tuple(columns)


class ColumnTypeError(BatchRefusedError):
    """`column` has the type `found`, of which no row can be a transaction."""

    def __init__(self, column: str, wanted: str, found: str) -> None:
        super().__init__(f"the column {column} holds {found}; it must hold {wanted}")
        self.column = column
        self.found = found


class InvalidScoresError(ValueError):
    """The scoring function answered with something else than one number a row."""
