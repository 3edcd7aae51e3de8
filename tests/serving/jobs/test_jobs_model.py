"""Any order of events, against a model of a job that fits on a page."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from companion.instruments.clocks import FakeClock
from companion.serving.jobs import Failure, JobState, LeaseLostError, NewJob, Part, Reject
from companion.serving.jobs.homes.sqlite import SqliteHome

ROWS, LEASE, MOST_TRIES = 10, 30.0, 3


@dataclass
class Model:
    """What a job should be: at most one holder, and every row behind the checkpoint once."""

    state: str = "queued"
    next_row: int = 1
    tries: int = 0
    lease_until: float = 0.0
    not_before: float = 0.0
    holder: object = None
    seen: list = field(default_factory=list)


class Jobs(RuleBasedStateMachine):
    """One job, workers that die at will, and a clock."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock(1000.0)
        self.home = SqliteHome(Path(self.folder.name, "jobs.db"), clock=self.clock)
        self.id = self.home.insert(NewJob("job", "csv", 1, "sha"))[0].id
        self.model = Model()
        self.claims = []

    def teardown(self):
        self.home.close()
        self.folder.cleanup()

    @rule(seconds=st.sampled_from([1.0, 29.0, 30.5, 100.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def somebody_claims(self):
        model, now = self.model, self.clock()
        expired = model.state == "running" and model.lease_until < now
        if expired and model.tries >= MOST_TRIES:
            model.state, model.holder, expired = "failed", None, False
        free = expired or (model.state == "queued" and model.not_before <= now)
        claim = self.home.claim("w", lease=LEASE, max_tries=MOST_TRIES)
        assert (claim is not None) == free
        if claim:
            self.claims.append(claim)
            model.state, model.holder, model.lease_until = "running", claim, now + LEASE
            model.tries += 1

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        what=st.sampled_from(["commit", "finish", "retry", "fail", "release", "renew"]),
    )
    def one_of_all_that_ever_claimed_writes(self, data, what):
        claim = data.draw(st.sampled_from(self.claims))
        model, now = self.model, self.clock()
        may = claim is model.holder
        if what == "commit":
            first = data.draw(st.sampled_from([model.next_row, 1]))
            end = min(first + data.draw(st.integers(1, 4)), ROWS + 1)
            may = may and first == model.next_row and first <= ROWS
            if first > ROWS:
                return
            part = Part(first, end, end - first - 1, str(first).encode(), 1, [Reject(first, "x")])
            written = self._writes(self.home.commit, claim, part, rows=ROWS, most_rejects=99)
            if may:
                model.seen += range(first, end)
                model.next_row, model.tries = end, 0
                model.lease_until = now + LEASE
        elif what == "finish":
            may = may and model.next_row == ROWS + 1
            written = self._writes(self.home.finish, claim, rows=ROWS)
            if may:
                model.state, model.holder = "done", None
        elif what in ("retry", "fail"):
            pause = 5.0 if what == "retry" else None
            written = self._writes(self.home.fail, claim, Failure("E", "m"), pause=pause)
            if may:
                model.state, model.holder = ("queued" if pause else "failed"), None
                model.not_before = now + 5.0
        elif what == "release":
            written = self._writes(self.home.release, claim)
            if may:
                model.state, model.holder = "queued", None
                model.tries -= 1
        else:
            written = self._writes(self.home.renew, claim)
            if may:
                model.lease_until = now + LEASE
        assert written == may

    @rule()
    def somebody_cancels(self):
        self.home.cancel(self.id)
        if self.model.state in ("queued", "running"):
            self.model.state, self.model.holder = "cancelled", None

    @invariant()
    def the_store_agrees_with_the_model(self):
        job = self.home.get(self.id)
        assert job.state is JobState(self.model.state)
        assert (job.next_row, job.tries) == (self.model.next_row, self.model.tries)
        assert job.scored + job.rejected == job.next_row - 1
        assert self.model.seen == list(range(1, job.next_row))
        firsts = [one.row for one in self.home.rejects(self.id)]
        assert len(firsts) == job.rejected == len(set(firsts))

    @staticmethod
    def _writes(write, *args, **named):
        try:
            write(*args, **named)
        except LeaseLostError:
            return False
        return True


Jobs.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJobs = Jobs.TestCase
