"""Q49 · A batch job stuck half-way: the exercise, its checks, and the mistakes they catch."""

import os
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

from companion.study import Exercise, Limits, Stage

exercise = Exercise(
    "run_job",
    hints={
        "start": (
            "First without any trouble: read next_row, score a piece, store the scores, move "
            "next_row, until all rows are done.",
            "Then put what belongs together into one transaction: BEGIN IMMEDIATE … COMMIT around "
            "results, rejects and next_row.",
            "Then the rows that raise, and last the token, which every change of `jobs` asks for.",
        ),
        "all-rows": (
            "Every row has one score, and at the end the job says so.",
            "The last piece may be shorter than `chunk`. When next_row has reached len(rows), set "
            "the state to 'done' and return \"done\".",
        ),
        "resume": (
            "Somebody was here before you. How far did they come?",
            "Begin at the next_row of the job, not at 0.",
        ),
        "poison": (
            "One row of a hundred raises. What becomes of the other ninety-nine?",
            "Find it: score the two halves of a piece that raises, and their halves, or its rows "
            "one by one. Only the row that raises alone is a reject.",
        ),
        "error-type": (
            "What does a reject say to whoever looks at it in a week?",
            "str(AssertionError()) is empty and str(KeyError('amount')) is \"'amount'\". "
            "type(error).__name__ always says something.",
        ),
        "interrupts": (
            "Not everything that is raised is a row's fault. Ctrl-C is not, nor is a shutdown.",
            "Catch Exception; KeyboardInterrupt and SystemExit go through, and leave only whole "
            "pieces behind.",
        ),
        "one-transaction": (
            "The process dies between two of your statements. Say, for each pair, what is in the "
            "database then, and what the next worker does with it.",
            "Results first, then next_row: rows are there twice. next_row first: rows are lost. "
            "Together: neither.",
            "db.execute('BEGIN IMMEDIATE'), all changes, db.execute('COMMIT'); the connection "
            "commits each statement by itself otherwise.",
        ),
        "fencing": (
            "Your process was stopped for a minute, and another worker has the job now. Who tells "
            "you?",
            "Ask with every write: UPDATE jobs … WHERE id = ? AND token = ?. No row changed: roll "
            'back and return "lost".',
            "The question and the write are one transaction, or the token changes in between.",
        ),
        "few-calls": (
            "Scoring row by row gives the right rows and costs the speed of a batch.",
            "Score a whole piece in one call; only one that raises is cut up.",
        ),
    },
)

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE jobs (id TEXT PRIMARY KEY, token INTEGER, next_row INTEGER, state TEXT);
CREATE TABLE results (job_id TEXT, row INTEGER, score REAL);
CREATE TABLE rejects (job_id TEXT, row INTEGER, error TEXT);
INSERT INTO jobs VALUES ('job', 7, 0, 'running');
INSERT INTO jobs VALUES ('other', 7, 3, 'running');
"""
ERRORS = (AssertionError, KeyError, ZeroDivisionError)


IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would only cost time


@contextmanager
def new_database(next_row=0):
    """The path of a database with a job, in a folder that goes away."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        path = str(Path(folder) / "jobs.db")
        with closing(sqlite3.connect(path)) as db:
            db.executescript(SCHEMA)
            db.execute("UPDATE jobs SET next_row = ? WHERE id = 'job'", (next_row,))
            db.commit()
        yield path


def opened(path):
    db = sqlite3.connect(path, timeout=5, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    return closing(db)


class Scores:
    """Scores rows by their value; counts its calls; some rows it cannot take."""

    def __init__(self, poison=(), error=AssertionError):
        self.poison, self.error, self.calls = set(poison), error, 0

    def __call__(self, rows):
        self.calls += 1
        if self.poison & set(rows):
            raise self.error
        return [row / 10_000 for row in rows]


def stored(path):
    """(rows with results, rows of rejects, next_row, state), each row as often as it is there."""
    with opened(path) as db:
        results = [row for (row,) in db.execute("SELECT row FROM results ORDER BY row")]
        rejects = [row for (row,) in db.execute("SELECT row FROM rejects ORDER BY row")]
        job = db.execute("SELECT next_row, state FROM jobs WHERE id = 'job'").fetchone()
        return results, rejects, *job


def values(case, count):
    return [int(value) for value in case.rng.choice(10_000, count, replace=False)]


@exercise.check(Stage.TYPE, hint="all-rows")
def all_rows_are_scored(attempt, case):
    """every row gets its score, the job is done, and run_job says so"""
    rows = values(case, int(case.rng.integers(30, 60)))
    with new_database() as path, opened(path) as db:
        got = attempt(db, "job", 7, rows, Scores(), chunk=10)
        given = f"{len(rows)} rows, chunk=10"
        case.equal(given=given, expected="done", got=got)
        found = dict(db.execute("SELECT row, score FROM results WHERE job_id = 'job'"))
        expected = {number: value / 10_000 for number, value in enumerate(rows)}
        case.equal(given=f"{given}: rows with results", expected=len(rows), got=len(found))
        case.true(
            found == expected,
            given=f"{given}: scores by row",
            expected="each row its own score",
            got=next((item for item in found.items() if item not in expected.items()), None),
        )
        case.equal(given=given, expected=(len(rows), "done"), got=stored(path)[2:])
        (other,) = db.execute("SELECT next_row, state FROM jobs WHERE id = 'other'").fetchall()
        case.equal(given=f"{given}: another job", expected=(3, "running"), got=other)


@exercise.check(Stage.VALUE, hint="few-calls")
def a_piece_is_one_call(attempt, case):
    """without trouble, each piece is scored in one call"""
    rows, score = values(case, 95), Scores()
    with new_database() as path, opened(path) as db:
        attempt(db, "job", 7, rows, score, chunk=10)
    case.equal(given="95 rows, chunk=10: calls of score", expected=10, got=score.calls)


@exercise.check(Stage.VALUE, hint="resume")
def it_goes_on_where_it_was(attempt, case):
    """it begins at next_row"""
    rows, first = values(case, 50), int(case.rng.integers(1, 49))
    with new_database(next_row=first) as path, opened(path) as db:
        attempt(db, "job", 7, rows, Scores(), chunk=10)
        results, _, next_row, state = stored(path)
    case.equal(
        given=f"50 rows, next_row={first}: first and last row with results, next_row, state",
        expected=(first, 49, 50, "done"),
        got=(results[0] if results else None, results[-1] if results else None, next_row, state),
    )


@exercise.check(Stage.VALUE, hint="poison")
def one_bad_row_costs_one_row(attempt, case):
    """rows that raise become rejects, and all others are scored"""
    rows = values(case, 60)
    bad = sorted(int(place) for place in case.rng.choice(60, 3, replace=False))
    with new_database() as path, opened(path) as db:
        got = attempt(db, "job", 7, rows, Scores([rows[place] for place in bad]), chunk=20)
        results, rejects, *_ = stored(path)
    given = f"60 rows, chunk=20, score raises for rows {bad}"
    case.equal(given=given, expected="done", got=got)
    case.equal(given=f"{given}: rejects", expected=bad, got=rejects)
    case.equal(given=f"{given}: rows with results", expected=57, got=len(results))


@exercise.check(Stage.VALUE, hint="error-type")
def a_reject_names_its_error(attempt, case):
    """a reject holds the type of its error"""
    rows, kind = values(case, 10), ERRORS[int(case.rng.integers(len(ERRORS)))]
    with new_database() as path, opened(path) as db:
        attempt(db, "job", 7, rows, Scores([rows[4]], kind), chunk=10)
        found = [error for (error,) in db.execute("SELECT error FROM rejects")]
    case.true(
        len(found) == 1 and kind.__name__ in str(found[0]),
        given=f"score raises {kind.__name__}() for one row",
        expected=f"a reject whose error names {kind.__name__}",
        got=found,
    )


@exercise.check(Stage.VALUE, hint="interrupts")
def an_interrupt_is_no_bad_row(attempt, case):
    """KeyboardInterrupt goes through, and what was stored before it is whole"""
    rows, stop = values(case, 50), int(case.rng.integers(20, 40))

    def score(piece):
        if rows[stop] in piece:
            raise KeyboardInterrupt
        return [0.5] * len(piece)

    with new_database() as path:
        given = f"50 rows, chunk=10, Ctrl-C while row {stop} is scored"
        with opened(path) as db:
            case.raises(
                KeyboardInterrupt,
                lambda: attempt(db, "job", 7, rows, score, chunk=10),
                given=given,
            )
        whole = stop // 10 * 10
        case.equal(
            given=f"{given}: rows with results, rejects, next_row, state",
            expected=(whole, 0, whole, "running"),
            got=(len(stored(path)[0]), len(stored(path)[1]), *stored(path)[2:]),
        )


@exercise.check(Stage.STRESS, hint="fencing")
def a_zombie_stores_nothing(attempt, case):
    """when the token has changed, nothing is stored, and run_job returns "lost" """
    rows, when = values(case, 50), int(case.rng.integers(0, 5))
    with new_database() as path, opened(path) as db, opened(path) as other:

        def score(piece):
            if rows[when * 10] in piece:  # meanwhile the lease has run out
                other.execute("UPDATE jobs SET token = 8 WHERE id = 'job'")
            return [0.5] * len(piece)

        got = attempt(db, "job", 7, rows, score, chunk=10)
        given = f"50 rows, chunk=10; while piece {when} is scored, another worker gets the job"
        case.equal(given=given, expected="lost", got=got)
        case.equal(
            given=f"{given}: rows with results, next_row, state",
            expected=(when * 10, when * 10, "running"),
            got=(len(stored(path)[0]), *stored(path)[2:]),
        )
        case.true(not db.in_transaction, given=given, expected="no open transaction", got="one")


@exercise.check(Stage.STRESS, hint="one-transaction", limits=Limits(seconds=30))
def killed_anywhere_nothing_is_lost_or_twice(attempt, case):
    """killed before any of its statements, it leaves whole pieces, and the next run completes it"""
    rows = values(case, 12)
    poison = [rows[int(case.rng.integers(12))]]
    for fatal in range(1, 80):
        with new_database() as path:
            died = dies_at(fatal, path, attempt, rows, Scores(poison))
            left, rejected, next_row, _ = stored(path)
            given = f"12 rows, chunk=4, kill -9 before SQL statement {fatal}"
            case.equal(
                given=f"{given}: rows with results or rejects, beside next_row={next_row}",
                expected=list(range(next_row)),
                got=sorted(left + rejected),
            )
            with opened(path) as db:
                attempt(db, "job", 7, rows, Scores(poison), chunk=4)
            left, rejected, *job = stored(path)
            case.equal(
                given=f"{given}, then run again: rows with results or rejects, next_row, state",
                expected=(list(range(12)), 12, "done"),
                got=(sorted(left + rejected), *job),
            )
        if not died:
            return


def dies_at(fatal, path, attempt, rows, score):
    """Run the attempt in a process that is killed before its statement `fatal`; whether it was."""
    child = os.fork()
    if child == 0:
        with opened(path) as db:
            count = 0

            def on_statement(statement):
                nonlocal count
                count += 1
                if count == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

            db.set_trace_callback(on_statement)
            try:
                attempt(db, "job", 7, rows, score, chunk=4)
            finally:
                os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def scores_of(score, rows, first):
    """(row, score) of the good rows and (row, type of error) of the others, by halving."""
    if not rows:
        return [], []
    try:
        return list(zip(range(first, first + len(rows)), score(rows), strict=True)), []
    except Exception as error:
        if len(rows) == 1:
            return [], [(first, type(error).__name__)]
    half = len(rows) // 2
    good, bad = scores_of(score, rows[:half], first)
    more_good, more_bad = scores_of(score, rows[half:], first + half)
    return good + more_good, bad + more_bad


@exercise.solution
def run_job(db, job_id, token, rows, score, chunk=100):
    (first,) = db.execute("SELECT next_row FROM jobs WHERE id = ?", (job_id,)).fetchone()
    while True:
        end = min(first + chunk, len(rows))
        good, bad = scores_of(score, rows[first:end], first)
        state = "done" if end == len(rows) else "running"
        db.execute("BEGIN IMMEDIATE")
        mine = db.execute(
            "UPDATE jobs SET next_row = ?, state = ? WHERE id = ? AND token = ? AND next_row = ?",
            (end, state, job_id, token, first),
        )
        if mine.rowcount == 0:
            db.execute("ROLLBACK")
            return "lost"
        db.executemany(f"INSERT INTO results VALUES ('{job_id}', ?, ?)", good)
        db.executemany(f"INSERT INTO rejects VALUES ('{job_id}', ?, ?)", bad)
        db.execute("COMMIT")
        if state == "done":
            return "done"
        first = end


@exercise.another_way
def row_by_row_when_it_must(db, job_id, token, rows, score, chunk=100):
    """A different shape: the token is read inside the transaction, bad pieces go row by row."""

    def scored(first, piece):
        try:
            return [("results", row, one) for row, one in enumerate(score(piece), first)]
        except Exception as error:
            if len(piece) == 1:
                return [("rejects", first, repr(error))]
        return [found for place, row in enumerate(piece) for found in scored(first + place, [row])]

    def job():
        asked = "SELECT token, next_row FROM jobs WHERE id = ?"
        return db.execute(asked, (job_id,)).fetchone()

    while (first := job()[1]) < len(rows):
        found = scored(first, rows[first : first + chunk])
        db.execute("BEGIN IMMEDIATE")
        try:
            if job() != (token, first):
                return "lost"
            for table, row, what in found:
                db.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (job_id, row, what))
            db.execute("UPDATE jobs SET next_row = ? WHERE id = ?", (first + len(found), job_id))
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    finished = "UPDATE jobs SET state = 'done' WHERE id = ? AND token = ?"
    return "done" if db.execute(finished, (job_id, token)).rowcount else "lost"


def store(db, job_id, good, bad):
    for row, one in good:
        db.execute("INSERT INTO results VALUES (?, ?, ?)", (job_id, row, one))
    for row, error in bad:
        db.execute("INSERT INTO rejects VALUES (?, ?, ?)", (job_id, row, error))


def checkpoint(db, job_id, token, end, rows, whose=" AND token = ?"):
    state = "done" if end == len(rows) else "running"
    values = (end, state, job_id, token) if whose else (end, state, job_id)
    changed = f"UPDATE jobs SET next_row = ?, state = ? WHERE id = ?{whose}"
    return db.execute(changed, values).rowcount > 0


def in_pieces(db, job_id, token, rows, score, chunk, *, keep, split=scores_of, begin=None):
    """The frame that the wrong attempts share; `keep(good, bad, end)` says whether it is theirs."""
    (first,) = db.execute("SELECT next_row FROM jobs WHERE id = ?", (job_id,)).fetchone()
    first = first if begin is None else begin
    while True:
        end = min(first + chunk, len(rows))
        good, bad = split(score, rows[first:end], first)
        if not keep(good, bad, end):
            return "lost"
        if end == len(rows):
            return "done"
        first = end


def together(db, job_id, token, rows, whose=" AND token = ?"):
    def keep(good, bad, end):
        db.execute("BEGIN IMMEDIATE")
        mine = checkpoint(db, job_id, token, end, rows, whose)
        if mine:
            store(db, job_id, good, bad)
        db.execute("COMMIT" if mine else "ROLLBACK")
        return mine

    return keep


@exercise.wrong("poison")
def received_pattern(db, job_id, token, rows, score, chunk=100):
    """The received answer: one except around it all marks the job failed."""
    try:
        return in_pieces(
            db,
            job_id,
            token,
            rows,
            score,
            chunk,
            keep=together(db, job_id, token, rows),
            split=lambda score, piece, first: (list(enumerate(score(piece), first)), []),
        )
    except Exception as error:
        db.execute("UPDATE jobs SET state = 'failed' WHERE id = ?", (job_id,))
        return f"failed: {error}"


@exercise.wrong("poison")
def skips_the_piece(db, job_id, token, rows, score, chunk=100):
    """A piece that raises is rejected as a whole: ninety-nine good rows go with one bad one."""

    def split(score, piece, first):
        try:
            return list(enumerate(score(piece), first)), []
        except Exception as error:
            name = type(error).__name__
            return [], [(first + place, name) for place in range(len(piece))]

    keep = together(db, job_id, token, rows)
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep, split=split)


@exercise.wrong("all-rows")
def forgets_the_rest(db, job_id, token, rows, score, chunk=100):
    """Whole pieces only: the rows after the last whole one are never scored."""
    whole = rows[: len(rows) // chunk * chunk - chunk]
    keep = together(db, job_id, token, whole)
    return in_pieces(db, job_id, token, whole, score, chunk, keep=keep)


@exercise.wrong("few-calls")
def row_by_row(db, job_id, token, rows, score, chunk=100):
    """Right, and as slow as single requests."""

    def split(score, piece, first):
        found = [scores_of(score, [row], first + place) for place, row in enumerate(piece)]
        return [one for good, _ in found for one in good], [one for _, bad in found for one in bad]

    keep = together(db, job_id, token, rows)
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep, split=split)


@exercise.wrong("resume")
def begins_again(db, job_id, token, rows, score, chunk=100):
    """Starts at row 0, whatever was done before."""
    keep = together(db, job_id, token, rows)
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep, begin=0)


@exercise.wrong("error-type")
def message_only(db, job_id, token, rows, score, chunk=100):
    """str(error), which is empty for many errors."""

    def split(score, piece, first):
        good, bad = scores_of(score, piece, first)
        told = []
        for row, _ in bad:
            try:
                score([piece[row - first]])
            except Exception as error:
                told.append((row, str(error)))
        return good, told

    keep = together(db, job_id, token, rows)
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep, split=split)


@exercise.wrong("interrupts")
def catches_everything(db, job_id, token, rows, score, chunk=100):
    """Ctrl-C becomes a rejected row, and the job cannot be stopped."""

    def split(score, piece, first):
        try:
            return list(enumerate(score(piece), first)), []
        except BaseException as error:
            if len(piece) == 1:
                return [], [(first, type(error).__name__)]
        half = len(piece) // 2
        good, bad = split(score, piece[:half], first)
        more, worse = split(score, piece[half:], first + half)
        return good + more, bad + worse

    keep = together(db, job_id, token, rows)
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep, split=split)


@exercise.wrong("fencing")
def nobody_asks(db, job_id, token, rows, score, chunk=100):
    """No token: whoever comes back late writes over somebody else's work."""
    keep = together(db, job_id, token, rows, whose="")
    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep)


@exercise.wrong("fencing")
def asks_once(db, job_id, token, rows, score, chunk=100):
    """Asks for the token at the beginning; it changes later."""
    mine = db.execute("SELECT token FROM jobs WHERE id = ?", (job_id,)).fetchone() == (token,)
    if not mine:
        return "lost"
    return nobody_asks(db, job_id, token, rows, score, chunk)


@exercise.wrong("one-transaction")
def results_then_checkpoint(db, job_id, token, rows, score, chunk=100):
    """Killed between the two, the next worker stores the same rows again."""

    def keep(good, bad, end):
        if db.execute("SELECT token FROM jobs WHERE id = ?", (job_id,)).fetchone() != (token,):
            return False
        db.execute("BEGIN")
        store(db, job_id, good, bad)
        db.execute("COMMIT")
        return checkpoint(db, job_id, token, end, rows)

    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep)


@exercise.wrong("one-transaction")
def checkpoint_then_results(db, job_id, token, rows, score, chunk=100):
    """Killed between the two, the rows of a piece are lost for good."""

    def keep(good, bad, end):
        if not checkpoint(db, job_id, token, end, rows):
            return False
        db.execute("BEGIN")
        store(db, job_id, good, bad)
        db.execute("COMMIT")
        return True

    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep)


@exercise.wrong("one-transaction")
def each_statement_alone(db, job_id, token, rows, score, chunk=100):
    """No BEGIN: in autocommit mode every statement is a transaction of its own."""

    def keep(good, bad, end):
        mine = checkpoint(db, job_id, token, end, rows)
        if mine:
            store(db, job_id, good, bad)
        return mine

    return in_pieces(db, job_id, token, rows, score, chunk, keep=keep)
