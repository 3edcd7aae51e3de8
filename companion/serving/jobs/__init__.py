"""Batch jobs that survive: a file is accepted once, scored once, and never half done.

`open_jobs` opens the store (SQLite or PostgreSQL), `Jobs` submits and asks, `Worker` does the work.
`ModelScorer` (in `.model_scorer`) brings a saved model, `.routes` the HTTP side, `.celery` runs the
same jobs on Celery.
"""

from companion.serving.jobs.errors import (
    BatchRefusedError,
    ColumnTypeError,
    IdempotencyConflictError,
    InvalidScoresError,
    JobError,
    JobsUnavailableError,
    LeaseLostError,
    MissingColumnsError,
    TooLargeError,
    TooManyRowsError,
    UnknownJobError,
    UnreadableFileError,
    UploadError,
    WrongFormatError,
)
from companion.serving.jobs.job import Claim, Failure, Job, JobState, NewJob, Part, Reject
from companion.serving.jobs.store import Jobs, Submitted, open_jobs
from companion.serving.jobs.worker import Outcome, Worker

__all__ = [
    "BatchRefusedError",
    "Claim",
    "ColumnTypeError",
    "Failure",
    "IdempotencyConflictError",
    "InvalidScoresError",
    "Job",
    "JobError",
    "JobState",
    "Jobs",
    "JobsUnavailableError",
    "LeaseLostError",
    "MissingColumnsError",
    "NewJob",
    "Outcome",
    "Part",
    "Reject",
    "Submitted",
    "TooLargeError",
    "TooManyRowsError",
    "UnknownJobError",
    "UnreadableFileError",
    "UploadError",
    "Worker",
    "WrongFormatError",
    "open_jobs",
]
