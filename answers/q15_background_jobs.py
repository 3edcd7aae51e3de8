"""Q15 · Background jobs: the exercise, its checks, and the mistakes they catch."""

import json
import sqlite3
import tempfile
import threading
import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path

from companion.instruments.clocks import FakeClock
from companion.study import Exercise, Limits, Stage

exercise = Exercise(
    "JobQueue",
    hints={
        "start": (
            "One table is enough: id, payload, state, done, attempts, error, token, lease_until.",
            "Write submit and get first. Open the file with isolation_level=None, so that every "
            "statement is committed at once.",
            "Then claim: one UPDATE that finds the oldest free job and takes it. The other three "
            "are an UPDATE … WHERE id = ? AND token = ? each, and say whether it changed a row.",
        ),
        "row-first": (
            "The process dies right after submit() returned. Who still knows of the job?",
            "Write the row to the file, and commit it, before submit returns.",
        ),
        "claim": (
            "claim() gives a dict with id, payload, done and token, the oldest job first.",
            "ORDER BY the rowid: SQLite numbers rows as they come. None when nothing is free.",
        ),
        "lease": (
            "The worker was killed and will never say so. How does the job get free again?",
            "A running job is free when its lease_until is before clock(); the claim sets it to "
            "clock() + lease.",
            "The job goes on, it does not begin again: claim hands out the last `done`.",
        ),
        "heartbeat": (
            "A worker that reports progress is alive. What follows for its lease?",
            "heartbeat stores `done` and sets lease_until to clock() + lease.",
        ),
        "fencing": (
            "The worker was not dead, it was slow. It comes back and completes the job. Whose is "
            "it now?",
            "Every write must say on whose behalf: WHERE id = ? AND token = ? AND state = "
            "'running'. No row changed means False.",
            "A name is not enough, since a worker that is started again has the same one. Let the "
            "token grow with each claim.",
        ),
        "failures": (
            "Why did it fail? Whoever looks has only the row.",
            "Store the error. `str(KeyError('amount'))` is \"'amount'\" and that of an "
            "AssertionError is empty, so keep the type too.",
        ),
        "attempts": (
            "One file kills its worker each time. How long does that go on?",
            "Count the claims, also those that ended in a lease that ran out, and give up at "
            "max_attempts: the state becomes 'failed'.",
        ),
        "one-statement": (
            "Two workers look for a job at the same moment. Both see the same one. And then?",
            "Looking and taking is one step: an UPDATE with the search in its WHERE, or a "
            "transaction that begins with BEGIN IMMEDIATE.",
            "`UPDATE jobs SET … WHERE id = (SELECT id … LIMIT 1) RETURNING *`",
        ),
    },
    limits=Limits(seconds=20),
)


IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would only cost time


@contextmanager
def new_path():
    """The path of a queue in a folder that goes away."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield str(Path(folder) / "jobs.db")


def made(attempt, path, clock=None, **settings):
    return attempt(path, clock=clock or FakeClock(1000.0), **settings)


def payloads(case, count):
    return [f"batch {number}" for number in case.rng.choice(10_000, count, replace=False)]


def state_of(queue, job_id):
    found = queue.get(job_id)
    return found["state"], found["done"]


@exercise.check(Stage.TYPE, hint="row-first")
def the_row_is_there_before_submit_returns(attempt, case):
    """what was submitted is queued, and another process sees it"""
    (payload,) = payloads(case, 1)
    with new_path() as path:
        job_id = made(attempt, path).submit(payload)
        got = made(attempt, path).get(job_id)
        case.equal(
            given=f"submit({payload!r}), then get(id) of a queue opened anew on the same file",
            expected=("queued", 0, 0),
            got=(got["state"], got["done"], got["attempts"]),
        )


@exercise.check(Stage.SHAPE, hint="claim")
def claims_come_in_order(attempt, case):
    """claim gives the oldest job, then the next, then None"""
    sent = payloads(case, 4)
    with new_path() as path:
        queue = made(attempt, path)
        ids = [queue.submit(payload) for payload in sent]
        jobs = [queue.claim("one") for _ in range(5)]
        given = f"{len(sent)} jobs submitted, five claims"
        case.equal(given=given, expected=None, got=jobs.pop())
        case.equal(
            given=given,
            expected=[(job_id, payload, 0) for job_id, payload in zip(ids, sent, strict=True)],
            got=[(job["id"], job["payload"], job["done"]) for job in jobs],
        )


@exercise.check(Stage.VALUE, hint="lease")
def a_lease_runs_out(attempt, case):
    """a job is free again when its lease has run out, not before, and goes on from its progress"""
    lease, done = float(case.rng.integers(5, 50)), int(case.rng.integers(1, 99))
    clock = FakeClock(1000.0)
    with new_path() as path:
        queue = made(attempt, path, clock, lease=lease)
        queue.submit("a")
        job = queue.claim("one")
        queue.heartbeat(job, done)
        clock.advance(lease - 1)
        given = f"a lease of {lease:.0f} s; another worker claims after {lease - 1:.0f} s"
        case.equal(given=given, expected=None, got=queue.claim("two"))
        clock.advance(2)
        again = queue.claim("two")
        given = f"progress {done} was noted; another worker claims after {lease + 1:.0f} s"
        case.equal(given=given, expected=done, got=again and again["done"])


@exercise.check(Stage.VALUE, hint="heartbeat")
def a_heartbeat_keeps_the_job(attempt, case):
    """a heartbeat says True, stores the progress and renews the lease"""
    lease = float(case.rng.integers(5, 50))
    clock = FakeClock(1000.0)
    with new_path() as path:
        queue = made(attempt, path, clock, lease=lease)
        job_id = queue.submit("a")
        job = queue.claim("one")
        answers = []
        for done in (1, 2, 3):
            clock.advance(lease - 1)
            answers.append(queue.heartbeat(job, done))
        clock.advance(lease - 1)
        given = f"a lease of {lease:.0f} s, a heartbeat every {lease - 1:.0f} s"
        case.equal(given=given, expected=[True] * 3, got=answers)
        case.equal(given=f"{given}; another claims", expected=None, got=queue.claim("two"))
        case.equal(given=given, expected=("running", 3), got=state_of(queue, job_id))
        case.equal(given="complete(job)", expected=True, got=queue.complete(job))
        case.equal(given="complete(job)", expected=("done", 3), got=state_of(queue, job_id))
        clock.advance(10 * lease)
        case.equal(given="a claim after the job is done", expected=None, got=queue.claim("two"))


@exercise.check(Stage.VALUE, hint="fencing")
def a_zombie_changes_nothing(attempt, case):
    """whoever lost the job hears False from all three, and changes nothing"""
    names = [("one", "two"), ("one", "one")]
    for first, second in names:
        clock = FakeClock(1000.0)
        with new_path() as path:
            queue = made(attempt, path, clock, lease=10.0, max_attempts=9)
            job_id = queue.submit("a")
            zombie = queue.claim(first)
            clock.advance(11)
            owner = queue.claim(second)
            queue.heartbeat(owner, 7)
            who = "the same worker, started again," if first == second else "another worker"
            given = f"the lease ran out and {who} has the job; the old claim says"
            for name, call in {
                "heartbeat(job, 1)": lambda q=queue, z=zombie: q.heartbeat(z, 1),
                "complete(job)": lambda q=queue, z=zombie: q.complete(z),
                "fail(job, error)": lambda q=queue, z=zombie: q.fail(z, ValueError("late")),
            }.items():
                case.equal(given=f"{given} {name}", expected=False, got=call())
                case.equal(
                    given=f"{given} {name}", expected=("running", 7), got=state_of(queue, job_id)
                )
            case.equal(given="its owner completes it", expected=True, got=queue.complete(owner))


@exercise.check(Stage.VALUE, hint="failures")
def a_failure_says_what_it_was(attempt, case):
    """fail stores the error's type, and queues the job again"""
    kind = [AssertionError, KeyError, TimeoutError][int(case.rng.integers(3))]
    with new_path() as path:
        queue = made(attempt, path)
        job_id = queue.submit("a")
        answer = queue.fail(queue.claim("one"), kind())
        got = queue.get(job_id)
        given = f"fail(job, {kind.__name__}()), the first of three attempts"
        case.equal(given=given, expected=True, got=answer)
        case.equal(given=given, expected="queued", got=got["state"])
        case.true(
            kind.__name__ in str(got["error"]),
            given=given,
            expected=f"an error that names {kind.__name__}",
            got=got["error"],
        )


@exercise.check(Stage.VALUE, hint="attempts")
def attempts_end(attempt, case):
    """after max_attempts claims a job that fails, or kills its worker, is failed for good"""
    most = int(case.rng.integers(2, 5))
    for dies in (False, True):
        clock = FakeClock(1000.0)
        with new_path() as path:
            queue = made(attempt, path, clock, lease=10.0, max_attempts=most)
            job_id = queue.submit("a")
            claims = 0
            while claims <= most + 1 and (job := queue.claim("one")) is not None:
                claims += 1
                if not dies:
                    queue.fail(job, ValueError("broken"))
                clock.advance(11)
            how = "every worker is killed" if dies else "every attempt fails"
            given = f"max_attempts={most}, {how}"
            case.equal(given=f"{given}: claims", expected=most, got=claims)
            got = queue.get(job_id)
            case.equal(given=given, expected=("failed", most), got=(got["state"], got["attempts"]))


@exercise.check(Stage.STRESS, hint="one-statement")
def no_job_is_claimed_twice(attempt, case):
    """of eight workers that claim at once, each job goes to one"""
    jobs = int(case.rng.integers(12, 18))

    def slow_clock():
        time.sleep(0.003)  # whoever looks at the clock gives way to the others
        return 1000.0

    with new_path() as path:
        queue = made(attempt, path)
        for number in range(jobs):
            queue.submit(f"batch {number}")
        together, claimed, errors = threading.Barrier(8), [], []

        def work(worker):
            own = made(attempt, path, slow_clock)
            together.wait()
            try:
                while (job := own.claim(worker)) is not None:
                    claimed.append(job["id"])
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    given = f"{jobs} jobs, eight workers at once"
    case.equal(given=f"{given}: errors", expected=[], got=errors[:1])
    twice = len(claimed) - len(set(claimed))
    case.equal(given=f"{given}: claimed twice", expected=0, got=twice)
    case.equal(given=f"{given}: claimed", expected=jobs, got=len(set(claimed)))


TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, payload TEXT, state TEXT DEFAULT 'queued',
    done INTEGER DEFAULT 0, attempts INTEGER DEFAULT 0, error TEXT, token INTEGER DEFAULT 0,
    lease_until REAL
)
"""


@exercise.solution
class JobQueue:
    def __init__(self, path, *, lease=30.0, max_attempts=3, clock=time.time):
        self.path, self.lease, self.max_attempts, self.clock = path, lease, max_attempts, clock
        self.run(TABLE)

    def run(self, statement, **values):
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            values = {"now": self.clock(), "lease": self.lease, **values}
            return [dict(row) for row in db.execute(statement, values)]

    def submit(self, payload):
        job_id = uuid.uuid4().hex
        self.run(
            "INSERT INTO jobs (id, payload) VALUES (:id, :payload)", id=job_id, payload=payload
        )
        return job_id

    def get(self, job_id):
        return self.run("SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def give_up(self):
        self.run(
            "UPDATE jobs SET state = 'failed', error = COALESCE(error, 'its workers died') "
            "WHERE state = 'running' AND lease_until < :now AND attempts >= :most",
            most=self.max_attempts,
        )

    def claim(self, worker):
        self.give_up()
        claimed = self.run(
            "UPDATE jobs SET state = 'running', token = token + 1, attempts = attempts + 1, "
            "lease_until = :now + :lease WHERE id = (SELECT id FROM jobs WHERE state = 'queued' "
            "OR (state = 'running' AND lease_until < :now) ORDER BY number LIMIT 1) RETURNING *"
        )
        return claimed[0] if claimed else None

    def change(self, job, what, **values):
        mine = "WHERE id = :id AND token = :token AND state = 'running' RETURNING id"
        named = {"id": job["id"], "token": job["token"], **values}
        return bool(self.run(f"UPDATE jobs SET {what} {mine}", **named))

    def heartbeat(self, job, done):
        return self.change(job, "done = :done, lease_until = :now + :lease", done=done)

    def complete(self, job):
        return self.change(job, "state = 'done'")

    def fail(self, job, error):
        return self.change(
            job,
            "error = :error, state = CASE WHEN attempts < :most THEN 'queued' ELSE 'failed' END",
            error=f"{type(error).__name__}: {error}",
            most=self.max_attempts,
        )


@exercise.another_way
class InTransactions:
    """A different shape: read and decide in Python, inside a transaction that has the lock."""

    def __init__(self, path, *, lease=30.0, max_attempts=3, clock=time.time):
        self.path, self.lease, self.max_attempts, self.clock = path, lease, max_attempts, clock
        with self.begun() as db:
            db.execute("CREATE TABLE IF NOT EXISTS log (id TEXT, payload TEXT, job TEXT)")

    @contextmanager
    def begun(self):
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.create_function("j", 1, json.dumps)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def read(self, db):
        return {row[0]: json.loads(row[1]) for row in db.execute("SELECT id, job FROM log")}

    def store(self, db, job):
        db.execute("UPDATE log SET job = ? WHERE id = ?", (json.dumps(job), job["id"]))

    def submit(self, payload):
        job = {"id": uuid.uuid4().hex, "payload": payload, "state": "queued", "done": 0}
        job |= {"attempts": 0, "error": None, "token": 0, "until": 0}
        with self.begun() as db:
            db.execute("INSERT INTO log VALUES (?, ?, ?)", (job["id"], payload, json.dumps(job)))
        return job["id"]

    def get(self, job_id):
        with self.begun() as db:
            return self.read(db)[job_id]

    def claim(self, worker):
        now = self.clock()
        with self.begun() as db:
            for job in self.read(db).values():
                expired = job["state"] == "running" and job["until"] < now
                if expired and job["attempts"] >= self.max_attempts:
                    self.store(db, {**job, "state": "failed"})
                elif expired or job["state"] == "queued":
                    job |= {"state": "running", "token": job["token"] + 1}
                    job |= {"attempts": job["attempts"] + 1, "until": now + self.lease}
                    self.store(db, job)
                    return job
        return None

    def change(self, job, **new):
        with self.begun() as db:
            there = self.read(db)[job["id"]]
            mine = there["state"] == "running" and there["token"] == job["token"]
            if mine:
                self.store(db, {**there, **new})
            return mine

    def heartbeat(self, job, done):
        return self.change(job, done=done, until=self.clock() + self.lease)

    def complete(self, job):
        return self.change(job, state="done")

    def fail(self, job, error):
        over = job["attempts"] >= self.max_attempts
        return self.change(job, state="failed" if over else "queued", error=repr(error))


@exercise.wrong("row-first")
class InTheProcess(JobQueue):
    """The received answer: the job is an object of this process, and goes with it."""

    def __init__(self, path, *, lease=30.0, max_attempts=3, clock=time.time):
        super().__init__(":memory:", lease=lease, max_attempts=max_attempts, clock=clock)
        self.jobs = {}

    def submit(self, payload):
        job_id = uuid.uuid4().hex
        self.jobs[job_id] = {"state": "queued", "done": 0, "attempts": 0}
        return job_id

    def get(self, job_id):
        return self.jobs.get(job_id, {"state": "gone", "done": 0, "attempts": 0})


@exercise.wrong("claim")
class NewestFirst(JobQueue):
    """Takes the job that came last: under load the first one waits for ever."""

    def run(self, statement, **values):
        return super().run(statement.replace("ORDER BY number", "ORDER BY number DESC"), **values)


@exercise.wrong("lease")
class NoLease(JobQueue):
    """Only what is queued is free: the job of a killed worker stays "running" for good."""

    def run(self, statement, **values):
        return super().run(
            statement.replace("OR (state = 'running' AND lease_until < :now)", ""), **values
        )


@exercise.wrong("lease")
class BeginsAgain(JobQueue):
    """The next worker starts from nothing."""

    def claim(self, worker):
        job = super().claim(worker)
        return job and {**job, "done": 0}


@exercise.wrong("heartbeat")
class HeartbeatWithoutLease(JobQueue):
    """Notes the progress and lets the lease run out under a worker that is alive."""

    def heartbeat(self, job, done):
        return self.change(job, "done = :done", done=done)


@exercise.wrong("fencing")
class NobodyAsks(JobQueue):
    """Completes whatever job it is told to: a zombie finishes somebody else's."""

    def change(self, job, what, **values):
        named = {"id": job["id"], **values}
        return bool(self.run(f"UPDATE jobs SET {what} WHERE id = :id RETURNING id", **named))


@exercise.wrong("fencing")
class OwnerByName(JobQueue):
    """Asks for the worker's name, which a restarted worker shares with the one before."""

    def claim(self, worker):
        job = super().claim(worker)
        if job:
            job["worker"] = worker
            self.owners = {**getattr(self, "owners", {}), job["id"]: worker}
        return job

    def change(self, job, what, **values):
        if self.owners.get(job["id"]) != job["worker"]:
            return False
        named = {"id": job["id"], **values}
        mine = "WHERE id = :id AND state = 'running' RETURNING id"
        return bool(self.run(f"UPDATE jobs SET {what} {mine}", **named))


@exercise.wrong("failures")
class MessageOnly(JobQueue):
    """str(error), which for many errors is empty."""

    def fail(self, job, error):
        return self.change(
            job,
            "error = :error, state = CASE WHEN attempts < :most THEN 'queued' ELSE 'failed' END",
            error=str(error),
            most=self.max_attempts,
        )


@exercise.wrong("attempts")
class TriesForEver(JobQueue):
    """No cap: a file that kills its worker kills all of them, one after another."""

    def __init__(self, path, *, lease=30.0, max_attempts=3, clock=time.time):
        super().__init__(path, lease=lease, max_attempts=10**9, clock=clock)


@exercise.wrong("attempts")
class CountsFailuresOnly(JobQueue):
    """A worker that dies raises nothing: its attempts are never counted against the cap."""

    def claim(self, worker):
        most, self.max_attempts = self.max_attempts, 10**9
        job = super().claim(worker)
        self.max_attempts = most
        return job


@exercise.wrong("one-statement")
class LooksThenTakes(JobQueue):
    """SELECT, then UPDATE: between the two, others see the same job."""

    def claim(self, worker):
        self.give_up()
        free = self.run(
            "SELECT id FROM jobs WHERE state = 'queued' OR (state = 'running' AND "
            "lease_until < :now) ORDER BY number LIMIT 1"
        )
        if not free:
            return None
        self.run(
            "UPDATE jobs SET state = 'running', token = token + 1, attempts = attempts + 1, "
            "lease_until = :now + :lease WHERE id = :id",
            id=free[0]["id"],
        )
        return self.get(free[0]["id"])


@exercise.wrong("one-statement")
class LooksAndTakesInOneTransaction(JobQueue):
    """A plain BEGIN takes no lock before the first write, so two of them see the same job."""

    def claim(self, worker):
        self.give_up()
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.execute("BEGIN")
            free = db.execute(
                "SELECT id FROM jobs WHERE state = 'queued' OR (state = 'running' AND "
                "lease_until < ?) ORDER BY number LIMIT 1",
                (self.clock(),),
            ).fetchone()
            if not free:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', token = token + 1, attempts = attempts + 1, "
                "lease_until = ? WHERE id = ?",
                (self.clock() + self.lease, free[0]),
            )
            db.execute("COMMIT")
        return self.get(free[0])
