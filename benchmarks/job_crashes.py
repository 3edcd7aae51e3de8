"""Batch jobs under fire: server and workers killed with SIGKILL at random moments, rows counted.

Each run has a server that accepts three files by HTTP, two workers that score them, and somebody
who kills one of the three, again and again, and starts another in its place. The client does what
clients do: it repeats a request that got no answer, with the same idempotency key. At the end every
row of every file must be there once, with its own score: rows lost 0, rows twice 0, jobs twice 0.
The store is an SQLite file in half of the runs, a PostgreSQL server in the others.

Processes come from a fork server, so that a new one is there in milliseconds and kills hit at every
stage of the work rather than at imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.process
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psycopg

from companion.instruments.benchmark import Row
from companion.instruments.postgresql_server import postgresql_server
from companion.instruments.server import free_port
from companion.serving.jobs import Jobs, JobState, Worker, open_jobs
from companion.transactions import simulate

TITLE = "Batch jobs and kill -9"

RUNS = 50
FILES = 3
ROWS = 2_000
CHUNK_ROWS = 100
WORKERS = 2
LEASE = 0.4
_LONGEST_RUN = 90.0

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["fastapi", "uvicorn", "companion.serving.jobs.routes", "benchmarks.job_crashes"]
)


@dataclass(frozen=True)
class CrashRun:
    """What one run came to: of `rows` that were accepted, how many are missing, doubled, wrong."""

    rows: int
    lost: int
    twice: int
    wrong: int
    jobs_too_many: int
    kills: int
    attempts: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.wrong or self.jobs_too_many)


def run(runs: int = RUNS) -> list[Row]:
    with postgresql_server() as server:
        return [
            *_rows("SQLite", [crash_run(seed) for seed in range(runs)]),
            *_rows("PostgreSQL", [crash_run(seed, server=server.url) for seed in range(runs)]),
        ]


def _rows(store: str, found: list[CrashRun]) -> list[Row]:
    what = f"{store}: {len(found)} runs, {sum(one.rows for one in found):,} rows accepted"
    again = sum(one.attempts for one in found) - FILES * len(found)
    return [
        Row(what, "kill -9 of a server or a worker", sum(one.kills for one in found), "kills"),
        Row(what, "jobs begun again", again, "times"),
        Row(what, "rows lost", sum(one.lost for one in found), "rows", target="0"),
        Row(what, "rows twice", sum(one.twice for one in found), "rows", target="0"),
        Row(what, "rows with another's score", sum(one.wrong for one in found), "rows", target="0"),
        Row(what, "jobs twice", sum(one.jobs_too_many for one in found), "jobs", target="0"),
    ]


def crash_run(seed: int, *, kills: int = 6, server: str | None = None) -> CrashRun:
    """One run; `kills` processes are killed at moments drawn by `seed`.

    The store is an SQLite file of its own, or a database of its own on the PostgreSQL at `server`.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        table = simulate(ROWS, seed=seed % 3).drop(columns=["is_fraud", "scenario", "label_time"])
        table["transaction_id"] = rng.permutation(ROWS)
        upload = Path(folder, "batch.parquet")
        table.to_parquet(upload, index=False)
        url = f"sqlite:///{folder}/jobs.db" if server is None else _fresh_database(server)
        uploads, port = f"{folder}/uploads", free_port()
        starters = [partial(_start, server_process, url, uploads, port)]
        starters += [partial(_start, worker_process, url, uploads)] * WORKERS
        with (
            contextlib.closing(open_jobs(url, uploads=uploads)) as jobs,
            _processes(starters) as alive,
            _client(port, upload.read_bytes()) as accepted,
        ):
            _wait(lambda: bool(accepted))
            for _ in range(kills):
                time.sleep(rng.uniform(0.02, 0.25))
                victim = int(rng.integers(len(alive)))
                alive[victim].kill()
                alive[victim].join()
                alive[victim] = starters[victim]()
            _wait(lambda: len(accepted) == FILES and _all_over(jobs))
            expected = dict(enumerate(table["transaction_id"], start=1))
            return _judged(jobs, accepted, expected, kills)


def _fresh_database(server: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS crashes WITH (FORCE)")
        connection.execute("CREATE DATABASE crashes")
    return urlsplit(server)._replace(path="/crashes").geturl()


def _judged(jobs: Jobs, accepted: list[str], expected: dict[int, int], kills: int) -> CrashRun:
    lost = twice = wrong = attempts = 0
    for job_id in accepted:
        found = jobs.results(job_id).to_pydict()
        counts = Counter(found["row"])
        lost += len(expected.keys() - counts.keys())
        twice += sum(counts.values()) - len(counts)
        wrong += sum(
            expected[row] != number or _score_of(number) != score
            for row, number, score in zip(*found.values(), strict=True)
        )
        attempts += jobs.get(job_id).attempts
    too_many = len(jobs.latest(100)) - FILES
    return CrashRun(FILES * len(expected), lost, twice, wrong, too_many, kills, attempts)


def _all_over(jobs: Jobs) -> bool:
    return all(job.state is JobState.DONE for job in jobs.latest(100))


def _score_of(transaction_id: int) -> float:
    return transaction_id / 1e6


@contextlib.contextmanager
def _processes(starters: list[Callable[[], Any]]) -> Iterator[list[Any]]:
    alive = [start() for start in starters]
    try:
        yield alive
    finally:
        for process in alive:
            process.kill()
            process.join()


@contextlib.contextmanager
def _client(port: int, body: bytes) -> Iterator[list[str]]:
    """Somebody who sends the file `FILES` times and repeats what was not answered."""
    accepted: list[str] = []
    over = threading.Event()

    def submit_all() -> None:
        headers = {"Content-Type": "application/vnd.apache.parquet"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as http:
            while len(accepted) < FILES and not over.wait(0.02):
                headers["Idempotency-Key"] = f"file {len(accepted)}"
                with contextlib.suppress(httpx.HTTPError):
                    answer = http.post("/v2/batches", content=body, headers=headers)
                    if answer.status_code == 202:
                        accepted.append(answer.json()["id"])

    thread = threading.Thread(target=submit_all)
    thread.start()
    try:
        yield accepted
    finally:
        over.set()
        thread.join()


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST_RUN
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the jobs were not done after {_LONGEST_RUN:.0f} s")
        time.sleep(0.05)


def _start(target: Callable[..., None], *arguments: Any) -> Any:
    process = _FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def worker_process(url: str, uploads: str) -> None:
    """Work until killed. Each piece takes a moment, so that kills hit within it, too."""
    _die_with_the_parent()

    def score(frame: Any) -> Any:
        time.sleep(0.01)
        return frame["transaction_id"] / 1e6

    jobs = open_jobs(url, uploads=uploads)
    Worker(jobs, score, chunk_rows=CHUNK_ROWS, lease=LEASE, max_tries=50).run(poll=0.02)


def server_process(url: str, uploads: str, port: int) -> None:
    """Accept batches until killed."""
    import uvicorn
    from fastapi import FastAPI

    from companion.serving.jobs.routes import batch_router

    _die_with_the_parent()
    app = FastAPI()
    app.include_router(batch_router(open_jobs(url, uploads=uploads)))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    asyncio.run(server.serve())


def _die_with_the_parent() -> None:
    parent = multiprocessing.process.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
