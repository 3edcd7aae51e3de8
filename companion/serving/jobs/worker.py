"""A worker: claim a job, score its file piece by piece, store each piece with the checkpoint.

The order of things is the whole idea. A piece's results, its rejects and the new checkpoint are one
transaction, so wherever the process dies the store says exactly which rows are done, and the next
worker goes on with the row after them: none is lost, none is there twice. Every write carries the
fencing token, so a worker that was stopped, overtaken, and comes back changes nothing.

What an error means is decided by its kind: a file that cannot be read will not be readable tomorrow
(the job fails), anything else may pass (it is tried again, after a pause, a limited number of times
without progress), and a lost lease is nobody's error.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from companion.serving.jobs.errors import (
    BatchRefusedError,
    JobsUnavailableError,
    LeaseLostError,
    UnreadableFileError,
)
from companion.serving.jobs.heartbeat import Heartbeat
from companion.serving.jobs.job import Claim, Failure, Job, JobState, Part, Reject
from companion.serving.jobs.reading import Batch, read_batch
from companion.serving.jobs.results import encoded
from companion.serving.jobs.scoring import Features, Score, score_piece
from companion.serving.jobs.store import Jobs

logger = logging.getLogger(__name__)

Ending = Literal["done", "failed", "to be tried again", "cancelled", "lost", "released"]


@dataclass(frozen=True)
class Outcome:
    """How a worker's time with `job` (as the store has it after) ended.

    "lost": another worker has it. "released": this worker was told to stop.
    """

    job: Job
    ending: Ending


def pause_after(tries: int) -> float:
    """Seconds before another try: 1, 2, 4 … 60."""
    return float(min(2 ** (tries - 1), 60))


class Worker:
    """Works through the jobs of `jobs`, one at a time.

    Args:
        score: the probability of fraud for each row of a frame; a row's score may depend on that
            row alone. The frame holds transactions or, where there are `features`, what these
            made of the whole file.
        features: called once a claim with all good rows of the file.
        name: of this worker, in the store; by default host, process and a few random digits.
        chunk_rows: rows of the file between two checkpoints; what a crash can cost in time.
        lease: seconds after which others may take over from a worker that has gone silent. Above
            what one piece takes in a process that lives but is starved.
        max_tries: how often a job may be claimed without its checkpoint moving.
        stuck_after: seconds without progress after which the lease is no longer renewed.
        pause: seconds before another try, from how many there were.
        on_checkpoint: called with the job after each.
        clock, sleep: monotonic seconds, and how to pass the time without work.
    """

    def __init__(
        self,
        jobs: Jobs,
        score: Score,
        *,
        features: Features | None = None,
        name: str | None = None,
        chunk_rows: int = 10_000,
        lease: float = 30.0,
        max_tries: int = 3,
        stuck_after: float = 300.0,
        pause: Callable[[int], float] = pause_after,
        on_checkpoint: Callable[[Job], None] = lambda job: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if chunk_rows < 1 or max_tries < 1:
            raise ValueError(f"at least one of each, got {chunk_rows=} and {max_tries=}")
        if not 0 < lease < float("inf") or not 0 < stuck_after < float("inf"):
            raise ValueError(f"seconds above 0 and finite, got {lease=} and {stuck_after=}")
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._jobs = jobs
        self._score = score
        self._features = features
        self._chunk_rows = chunk_rows
        self._lease = lease
        self._max_tries = max_tries
        self._stuck_after = stuck_after
        self._pause = pause
        self._on_checkpoint = on_checkpoint
        self._clock = clock
        self._sleep = sleep
        self._stopping = False

    @property
    def jobs(self) -> Jobs:
        """Whose jobs these are."""
        return self._jobs

    def stop(self) -> None:
        """Stop after the piece under way, and give the job back. Safe in a signal handler."""
        self._stopping = True  # a threading.Event takes a lock, which the handler may interrupt

    def run(self, *, poll: float = 1.0, until_empty: bool = False) -> None:
        """Work until `stop`, looking for jobs every `poll` seconds when there is none.

        With `until_empty`, only while there are any. A store that does not answer is waited for.
        """
        while not self._stopping:
            try:
                if self.run_one() is not None:
                    continue
                if until_empty:
                    return
            except JobsUnavailableError as error:
                logger.warning("%s", error)
            self._sleep(poll)

    def run_one(self, job_id: str | None = None) -> Outcome | None:
        """Claim the oldest free job (or `job_id`) and work on it; None where there is none.

        Raises `JobsUnavailableError`; the job stays whoever's its lease says.
        """
        home = self._jobs.home
        claim = home.claim(self.name, lease=self._lease, max_tries=self._max_tries, job_id=job_id)
        if claim is None:
            return None
        outcome = self._worked(claim)
        logger.info("job %s: %s after row %d", claim.id, outcome.ending, outcome.job.next_row - 1)
        if outcome.job.state.final:
            self._jobs.uploads.remove(claim.id)
        return outcome

    def _worked(self, claim: Claim) -> Outcome:
        home = self._jobs.home
        try:
            with Heartbeat(
                home, claim, stuck_after=self._stuck_after, clock=self._clock
            ) as heartbeat:
                return self._work(claim, heartbeat)
        except LeaseLostError:
            job = home.get(claim.id)
            return Outcome(job, "cancelled" if job.state is JobState.CANCELLED else "lost")
        except JobsUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the job's
            return self._failed(claim, error)

    def _failed(self, claim: Claim, error: Exception) -> Outcome:
        home, failure = self._jobs.home, Failure.of(error)
        tries = home.get(claim.id).tries
        for_good = isinstance(error, BatchRefusedError) or tries >= self._max_tries
        logger.warning("job %s: %s: %s", claim.id, failure.type, failure.message)
        try:
            job = home.fail(claim, failure, pause=None if for_good else self._pause(max(1, tries)))
        except LeaseLostError:
            return Outcome(home.get(claim.id), "lost")
        return Outcome(job, "failed" if for_good else "to be tried again")

    def _work(self, claim: Claim, heartbeat: Heartbeat) -> Outcome:
        home = self._jobs.home
        batch = self._read(claim)
        table = batch.frame if self._features is None else self._features(batch.frame)
        heartbeat.progressed()
        first = claim.job.next_row
        while first <= batch.rows:
            if self._stopping:
                return Outcome(home.release(claim), "released")
            part = self._part(batch, table, first)
            job = home.commit(claim, part, rows=batch.rows, most_rejects=self._jobs.most_rejects)
            heartbeat.progressed()
            self._on_checkpoint(job)
            first = part.end
        return Outcome(home.finish(claim, rows=batch.rows), "done")

    def _read(self, claim: Claim) -> Batch:
        path = self._jobs.uploads.path(claim.id)
        if not path.is_file():
            self._jobs.home.renew(claim)  # a job that was just cancelled has no file any more
            raise UnreadableFileError(f"the file of job {claim.id} is not there")
        return read_batch(path, claim.job.kind, max_rows=self._jobs.max_rows)

    def _part(self, batch: Batch, table: pd.DataFrame, first: int) -> Part:
        """Rows of the file from `first`, a piece of them: the same whoever computes it."""
        end = min(first + self._chunk_rows, batch.rows + 1)
        chosen = batch.good_between(first, end)
        scored = score_piece(self._score, table.iloc[chosen])
        rows = batch.frame.index.to_numpy()[chosen]
        good = ~np.isnan(scored.probability)
        ids = batch.frame["transaction_id"].to_numpy()[chosen]
        count, told = batch.bad_between(first, end, self._jobs.most_rejects)
        told += [
            Reject(int(rows[position]), f"the model cannot score it ({kind})")
            for position, kind in scored.poison.items()
        ]
        return Part(
            first,
            end,
            int(good.sum()),
            encoded(rows[good], ids[good], scored.probability[good]),
            count + len(scored.poison),
            told,
        )
