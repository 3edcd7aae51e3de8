"""Batches over HTTP: send a file, get a job, ask for it, fetch what came of it.

The answer to an upload is 202 with a `Location`, and is given only when the job is stored: from
then on it does not depend on this process. The body is the file itself and no form, so it can be
streamed to the disk as it arrives, whatever its size; a form would be parsed and spooled first.

Nothing here waits on the event loop for a disk or a database, nor does it take the threads that all
other routes share: uploads and answers have a few threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse

from companion.serving.jobs.errors import (
    IdempotencyConflictError,
    JobsUnavailableError,
    TooLargeError,
    UnknownJobError,
    WrongFormatError,
)
from companion.serving.jobs.job import Job, JobState, Kind
from companion.serving.jobs.results import as_csv, as_parquet, rejects_as_csv
from companion.serving.jobs.store import Jobs, Submitted
from companion.serving.problems import documented, problem_response
from companion.serving.schemas import ProblemOut

logger = logging.getLogger(__name__)
T = TypeVar("T")

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
KINDS: dict[str, Kind] = {CSV: "csv", PARQUET: "parquet"}
_THREADS = 4
_RETRY_AFTER = {"Retry-After": "1"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=200, pattern="^[ -~]+$"),
]


class JobOut(BaseModel):
    """A job as a client sees it. Times are in UTC."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: JobState
    progress: Annotated[float, Field(ge=0, le=1, description="share of rows that are done")]
    rows: Annotated[int | None, Field(description="in the file; null until it has been read")]
    rows_done: int
    scored: int
    rejected: int
    attempts: Annotated[int, Field(description="how often a worker began or resumed it")]
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    error: Annotated[str | None, Field(description="the type of the last error, if any")]

    @classmethod
    def of(cls, job: Job) -> JobOut:
        return cls(
            id=job.id,
            state=job.state,
            progress=round(job.progress, 4),
            rows=job.rows,
            rows_done=job.next_row - 1,
            scored=job.scored,
            rejected=job.rejected,
            attempts=job.attempts,
            created_at=_moment(job.created_at),
            updated_at=_moment(job.updated_at),
            finished_at=None if job.finished_at is None else _moment(job.finished_at),
            error=job.error.type if job.error else None,
        )


def batch_router(
    jobs: Jobs,
    *,
    prefix: str = "/v2/batches",
    owner_of: Callable[[Request], str] = lambda request: "",
    on_accepted: Callable[[Job], None] = lambda job: None,
    upload_timeout: float = 600.0,
) -> APIRouter:
    """The routes of batches over `jobs`.

    `owner_of` says whose request it is: an owner sees his own jobs, and of others not even that
    they exist. `on_accepted` is called with each new job once it is stored, as to tell an executor;
    what it raises is logged, and the job stays, for whoever looks into the store. `upload_timeout`
    is the longest that one upload may take, in seconds.
    """
    router = APIRouter(prefix=prefix, tags=["batches"])
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="batches")

    async def in_thread(call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call, *args)

    def accepted(upload: Any, owner: str, key: str | None) -> Submitted:
        submitted = jobs.accept(upload, owner=owner, key=key)
        if submitted.created:
            try:
                on_accepted(submitted.job)
            except Exception:
                logger.exception("job %s is stored, but nobody could be told", submitted.job.id)
        return submitted

    async def asked(request: Request, call: Callable[[str], T], job_id: str) -> T | Response:
        """`call(job_id)` if the job is the asker's own, or the problem that it is."""
        owner = owner_of(request)

        def own() -> T:
            jobs.get(job_id, owner=owner)
            return call(job_id)

        try:
            return await in_thread(own)
        except UnknownJobError:
            return problem_response(404, "There is no such job")
        except JobsUnavailableError:
            return _unavailable()

    @router.post(
        "",
        status_code=202,
        response_model=JobOut,
        responses=documented(ProblemOut, (400, 408, 413, 415, 422, 503)),
        openapi_extra={
            "requestBody": {"required": True, "content": {CSV: _BINARY, PARQUET: _BINARY}}
        },
        summary="Send a file of transactions to be scored",
    )
    async def submit(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        kind = KINDS.get(media_type)
        if kind is None:
            return problem_response(
                415, "Unsupported media type", f"A batch is {CSV} or {PARQUET}."
            )
        if request.headers.get("content-encoding", "identity") != "identity":
            return problem_response(
                415, "Unsupported content coding", "Send the file as it is: nothing is unpacked."
            )
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > jobs.uploads.max_bytes:
            return _too_large(jobs.uploads.max_bytes)
        try:
            with await in_thread(jobs.begin_upload, kind) as upload:
                async with asyncio.timeout(upload_timeout):
                    async for piece in request.stream():
                        await in_thread(upload.write, piece)
                submitted = await in_thread(accepted, upload, owner_of(request), idempotency_key)
        except TooLargeError as error:
            return _too_large(error.limit)
        except WrongFormatError as error:
            return problem_response(415, "Not what it was announced to be", str(error))
        except TimeoutError:
            return problem_response(408, "The upload took too long")
        except ClientDisconnect:
            return problem_response(400, "The upload was cut off")
        except IdempotencyConflictError as error:
            return problem_response(
                422, "The idempotency key was used for another file", job_id=error.job_id
            )
        except JobsUnavailableError:
            return _unavailable()
        return _told(submitted.job, 202, {"Location": f"{prefix}/{submitted.job.id}"})

    @router.get(
        "/{job_id}",
        response_model=JobOut,
        responses=documented(ProblemOut, (404, 422, 503)),
        summary="How far a job is",
    )
    async def progress(request: Request, job_id: JobId) -> Response:
        found = await asked(request, jobs.get, job_id)
        return found if isinstance(found, Response) else _told(found, 200)

    @router.post(
        "/{job_id}/cancel",
        response_model=JobOut,
        responses=documented(ProblemOut, (404, 422, 503)),
        summary="Stop a job; what was scored of it stays",
    )
    async def cancel(request: Request, job_id: JobId) -> Response:
        found = await asked(request, jobs.cancel, job_id)
        return found if isinstance(found, Response) else _told(found, 200)

    @router.get(
        "/{job_id}/results",
        response_class=Response,
        responses={
            200: {"content": {CSV: _BINARY, PARQUET: _BINARY}},
            **documented(ProblemOut, (404, 409, 422, 503)),
        },
        summary="row, transaction_id, probability; CSV, or Parquet if Accept asks for it",
    )
    async def results(request: Request, job_id: JobId) -> Response:
        found = await asked(request, jobs.get, job_id)
        if isinstance(found, Response):
            return found
        if not found.state.final:
            return problem_response(409, "The job is not over yet", headers=_RETRY_AFTER)
        parquet = PARQUET in request.headers.get("accept", "")
        pieces = (as_parquet if parquet else as_csv)(jobs.payloads(job_id))
        return StreamingResponse(
            _streamed(pieces, in_thread), media_type=PARQUET if parquet else CSV
        )

    @router.get(
        "/{job_id}/rejects",
        response_class=Response,
        responses={200: {"content": {CSV: _BINARY}}, **documented(ProblemOut, (404, 422, 503))},
        summary="row, reason of what could not be scored, as far as it was kept",
    )
    async def rejects(request: Request, job_id: JobId) -> Response:
        found = await asked(request, jobs.get, job_id)
        if isinstance(found, Response):
            return found
        pieces = rejects_as_csv(jobs.rejects(job_id))
        return StreamingResponse(
            _streamed(pieces, in_thread),
            media_type=CSV,
            headers={"Rejected-Rows": str(found.rejected)},
        )

    return router


async def _streamed(pieces: Iterator[bytes], in_thread: Callable[..., Any]) -> AsyncIterator[bytes]:
    while (piece := await in_thread(next, pieces, None)) is not None:
        yield piece


def _told(job: Job, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(JobOut.of(job).model_dump(mode="json"), status, headers)


def _too_large(limit: int) -> Response:
    return problem_response(413, "Content too large", f"A batch has at most {limit:,} bytes.")


def _unavailable() -> Response:
    return problem_response(503, "Jobs are not available at present", headers=_RETRY_AFTER)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
