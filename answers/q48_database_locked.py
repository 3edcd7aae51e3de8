"""Q48 · Database is locked: the exercise, its checks, and the mistakes they catch."""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path

from companion import storage
from companion.study import Exercise, Limits, Stage

exercise = Exercise(
    "Database",
    hints={
        "start": (
            "Begin with one connection, and with a `write` that runs the function and commits.",
            "Say BEGIN, COMMIT and ROLLBACK yourself: connect with isolation_level=None, so that "
            "Python opens no transaction behind your back.",
            "Then four decisions: how the transaction begins, what happens when the function "
            "raises, how long a lock is waited for, and which journal mode lets readers go on.",
        ),
        "commit": (
            "write() owes two things: the function's result to its caller, and the changes to "
            "everybody who opens the file. Which one is missing?",
            "Call the function, COMMIT, and only then return what the function returned.",
        ),
        "readers": (
            "A report in another process has a long SELECT open. Does your COMMIT wait for it?",
            "In the default journal mode a writer cannot commit while anybody reads. In one other "
            "mode it can.",
            "`PRAGMA journal_mode = WAL`, once, when you open the file.",
        ),
        "rollback": (
            "The function raised half-way. What is in the database, and who has the lock now?",
            "Every way out of the function ends the transaction, KeyboardInterrupt too: an "
            "abandoned cell in a notebook must not lock everybody else out.",
            "`except BaseException:` ROLLBACK, and raise again.",
        ),
        "one-transaction": (
            "The function reads, then writes. What can happen between the two?",
            "BEGIN takes no lock until the first write; Python's own way, whatever its "
            "isolation_level, does not even begin before it. Somebody else can write in between.",
            "Take the write lock before the function reads: `BEGIN IMMEDIATE`.",
        ),
        "backup": (
            "Which files hold your committed rows at this moment? The one you copied is not all.",
            "What is committed may still stand in the -wal file. Let SQLite make the copy, since "
            "only SQLite knows what is committed.",
            "`connection.backup(other)`, where `other` is a connection to the target; or VACUUM "
            "INTO.",
        ),
        "wait": (
            "Somebody else is writing, and will be done soon. What does your write do meanwhile?",
            "SQLite waits by itself when it is told how long: `timeout` of sqlite3.connect, or "
            "PRAGMA busy_timeout, which counts in milliseconds.",
        ),
        "give-up": (
            "The holder never lets go. When does your caller hear of it?",
            "After `timeout` seconds the sqlite3.OperationalError goes to the caller: no loop "
            "around it, and no except that keeps it.",
        ),
        "sidecars": (
            "A process was killed and left -wal and -shm behind. What is in them?",
            "They are no locks. The -wal file holds committed rows, and the next opening puts them "
            "in their place: leave all of SQLite's files to SQLite.",
        ),
    },
)

REPEATER = """
import sqlite3, sys

db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
print("ready", flush=True)
for statement in sys.stdin:
    try:
        print(db.execute(statement).fetchall(), flush=True)
    except sqlite3.OperationalError as error:
        print(error, flush=True)
"""

COUNTER = """
import sqlite3, sys, time

db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
db.execute("PRAGMA synchronous = OFF")
counted = 0
while db.execute("SELECT name FROM stock WHERE name = 'stop'").fetchone() is None:
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE stock SET n = n + 1 WHERE name = 'shared'")
    time.sleep(0.004)
    db.execute("COMMIT")
    counted += 1
    if counted == 1:
        print("going", flush=True)
    time.sleep(0.004)
print(counted, flush=True)
"""


class Rival:
    """Another process that has the database open, and never waits for a lock."""

    def __init__(self, path, script=REPEATER):
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.said()

    def said(self):
        return self.process.stdout.readline().strip()

    def __call__(self, statement):
        """Have it run one statement; what it was answered, or SQLite's error."""
        self.process.stdin.write(statement + "\n")
        return self.said()

    def kill(self):
        self.process.kill()  # SIGKILL
        self.process.communicate()


@contextmanager
def new_database(**rows):
    """The path of a new database with a table `stock`, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stock.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE stock (name TEXT PRIMARY KEY, n INTEGER)")
            db.executemany("INSERT INTO stock VALUES (?, ?)", rows.items())
            db.commit()
        yield path


@contextmanager
def rival_of(path, script=REPEATER):
    rival = Rival(path, script)
    try:
        yield rival
    finally:
        rival.kill()


def amount_of(connection, name="shared"):
    return connection.execute("SELECT n FROM stock WHERE name = ?", (name,)).fetchone()[0]


def set_amount(connection, n, name="shared"):
    connection.execute("UPDATE stock SET n = ? WHERE name = ?", (n, name))


def add_one(connection):
    set_amount(connection, amount_of(connection) + 1)


def told(call):
    """What `call` returned, or SQLite's error as the caller reads it."""
    try:
        return call()
    except (sqlite3.Error, storage.DatabaseError) as error:
        return f"{type(error).__name__}: {error}"


@exercise.check(Stage.TYPE, hint="commit")
def others_see_what_was_written(attempt, case):
    """write() returns the function's result, and another process sees what it wrote"""
    number = int(case.rng.integers(1, 10**6))

    def work(connection):
        set_amount(connection, number)
        return f"set to {number}"

    with new_database(shared=0) as path, rival_of(path) as rival:
        got = attempt(path).write(work)
        case.equal(given="write(work)", expected=f"set to {number}", got=got)
        case.equal(
            given=f"write() has set n to {number}; another process reads it",
            expected=f"[({number},)]",
            got=rival("SELECT n FROM stock"),
        )


@exercise.check(Stage.VALUE, hint="rollback")
def nothing_is_left_of_a_failed_write(attempt, case):
    """whatever the function raises, nothing of it is left, and the lock is free"""
    first = int(case.rng.integers(1, 1000))
    for kind in (ValueError, KeyboardInterrupt):

        def work(connection, kind=kind):
            set_amount(connection, -1)
            raise kind("half-way")

        with new_database(shared=first) as path, rival_of(path) as rival:
            database = attempt(path)
            given = f"a function that sets n to -1 and raises {kind.__name__}"
            case.raises(kind, lambda d=database, w=work: d.write(w), given=given)
            case.equal(
                given=f"{given}; another process then adds 1 to n, which was {first}, and reads it",
                expected=["[]", f"[({first + 1},)]"],
                got=[rival("UPDATE stock SET n = n + 1"), rival("SELECT n FROM stock")],
            )
            case.equal(
                given=f"{given}; then a good write",
                expected="fine",
                got=told(lambda d=database: d.write(lambda connection: "fine")),
            )


@exercise.check(Stage.VALUE, hint="readers")
def a_long_read_holds_nobody_up(attempt, case):
    """a write commits while another process is in the middle of reading"""
    first = int(case.rng.integers(1, 1000))
    with new_database(shared=first) as path:
        database = attempt(path, timeout=0.5)
        with rival_of(path) as rival:
            rival("BEGIN")
            rival("SELECT n FROM stock")
            got = told(lambda: database.write(lambda connection: add_one(connection) or "written"))
            case.equal(
                given="a write with timeout=0.5 while another process reads in a transaction",
                expected="written",
                got=got,
            )
            case.equal(
                given=f"the reader reads again in the same transaction; n was {first}",
                expected=f"[({first},)]",
                got=rival("SELECT n FROM stock"),
            )


@exercise.check(Stage.VALUE, hint="one-transaction")
def nobody_writes_in_between(attempt, case):
    """what the function has read is still so when it writes"""
    first = int(case.rng.integers(1, 1000))
    others = []
    with new_database(shared=first) as path:
        database = attempt(path)
        with rival_of(path) as rival:

            def work(connection):
                n = amount_of(connection)
                if not others:  # once, also for those who begin again
                    others.append(rival("UPDATE stock SET n = n + 100"))
                set_amount(connection, n + 1)
                return "written"

            got = told(lambda: database.write(work))
            given = (
                f"n is {first}; the function reads it, another process tries to add 100, "
                "the function writes what it read plus 1"
            )
            case.equal(given=given, expected="written", got=got)
            refused = "locked" in others[0]
            case.equal(
                given=f"{given}; the other process was told {others[0]!r}",
                expected=f"[({first + (1 if refused else 101)},)]",
                got=rival("SELECT n FROM stock"),
            )


@exercise.check(Stage.VALUE, hint="backup")
def the_backup_has_all_that_is_committed(attempt, case):
    """one file holds everything committed so far, and nothing that is not"""
    count = int(case.rng.integers(20, 60))
    names = [f"item {number}" for number in range(count)]

    def fill(connection):
        connection.executemany("INSERT INTO stock VALUES (?, 1)", [(name,) for name in names])

    with new_database() as path, tempfile.TemporaryDirectory() as elsewhere:
        database = attempt(path)
        database.write(fill)
        with rival_of(path) as rival:
            rival("BEGIN IMMEDIATE")
            rival("INSERT INTO stock VALUES ('not committed', 1)")
            error = told(lambda: database.backup(path.with_name("backup.db")))
        given = f"{count} rows committed, one more being written by another process; backup(target)"
        case.equal(given=given, expected=None, got=error)
        case.true(
            path.with_name("backup.db").is_file(),
            given=given,
            expected="a file at target",
            got="no file",
        )
        alone = shutil.copy(path.with_name("backup.db"), Path(elsewhere) / "alone.db")
        with closing(sqlite3.connect(alone)) as db:
            got = told(lambda: sorted(row[0] for row in db.execute("SELECT name FROM stock")))
        case.true(
            got == sorted(names),
            given=f"{given}; that file alone is opened elsewhere",
            expected=f"the {count} committed rows",
            got=got if isinstance(got, str) else f"{len(got)} rows",
        )


@exercise.check(Stage.STRESS, hint="wait")
def it_waits_for_a_lock(attempt, case):
    """a write waits until another process has committed, and sees what that wrote"""
    number = int(case.rng.integers(1, 1000))
    with new_database(shared=0) as path:
        database = attempt(path, timeout=8.0)
        with rival_of(path) as rival:
            rival("BEGIN IMMEDIATE")
            rival(f"UPDATE stock SET n = {number}")
            letting_go = threading.Timer(0.3, rival, ["COMMIT"])
            letting_go.start()
            got = told(lambda: database.write(amount_of))
            letting_go.join()
    case.equal(
        given=f"another process sets n to {number} and commits after 0.3 s; timeout=8",
        expected=number,
        got=got,
    )


@exercise.check(Stage.STRESS, hint="give-up", limits=Limits(seconds=4))
def it_gives_up_in_time(attempt, case):
    """when the lock stays taken, the caller gets the error after the timeout"""
    with new_database(shared=0) as path:
        database = attempt(path, timeout=0.2)
        with rival_of(path) as rival:
            rival("BEGIN IMMEDIATE")
            given = "another process holds the lock and does not let go; write() with timeout=0.2"
            case.raises(Exception, lambda: database.write(add_one), given=given)
            rival("ROLLBACK")
            database.write(add_one)
            case.equal(
                given=f"{given}; then the lock is let go, and a second write",
                expected="[(1,)]",
                got=rival("SELECT n FROM stock"),
            )


@exercise.check(Stage.STRESS, hint="sidecars")
def committed_rows_survive_a_kill(attempt, case):
    """what a process committed before it was killed is there when the database is opened"""
    count = int(case.rng.integers(5, 30))
    with new_database() as path:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
        with rival_of(path) as rival:
            for number in range(count):
                rival(f"INSERT INTO stock VALUES ('item {number}', 1)")
            rival.kill()
        database = attempt(path)
        got = told(
            lambda: database.write(
                lambda connection: connection.execute("SELECT count(*) FROM stock").fetchone()[0]
            )
        )
    case.equal(
        given=f"a process commits {count} rows and is killed; then the database is opened: rows",
        expected=count,
        got=got,
    )


@exercise.check(Stage.STRESS, hint="wait", limits=Limits(seconds=30))
def four_processes_count_together(attempt, case):
    """while three other processes write all the time, every write gets its turn and counts"""
    writes = int(case.rng.integers(12, 20))
    with new_database(shared=0) as path:
        database = attempt(path, timeout=20.0)
        rivals = [Rival(path, COUNTER) for _ in range(3)]  # each has said that it is going
        try:
            got = [told(lambda: database.write(add_one)) for _ in range(writes)]
            with closing(sqlite3.connect(path, timeout=20.0)) as db:
                db.execute("INSERT INTO stock VALUES ('stop', 0)")
                db.commit()
                theirs = sum(int(rival.said()) for rival in rivals)
                counted = amount_of(db)
        finally:
            for rival in rivals:
                rival.kill()
    refused = [answer for answer in got if answer is not None]
    given = f"{writes} writes by this process, {theirs} by three others at the same time"
    case.equal(given=f"{given}: refused", expected=[], got=refused[:2])
    case.equal(given=f"{given}: counted", expected=writes + theirs, got=counted)


@exercise.solution
class Database:
    def __init__(self, path, timeout=5.0):
        self.connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")

    def write(self, function):
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = function(self.connection)
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        return result

    def backup(self, target):
        with closing(sqlite3.connect(target)) as copy:
            self.connection.backup(copy)


@exercise.another_way
class ConnectionForEachWrite:
    """A different shape: nothing is kept open, and SQLite writes the copy as a new database."""

    def __init__(self, path, timeout=5.0):
        self.path, self.timeout = path, timeout
        with self.connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def connected(self):
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * self.timeout)}")
            yield connection
        finally:
            connection.close()  # which rolls back what is not committed

    def write(self, function):
        with self.connected() as connection:
            connection.execute("BEGIN EXCLUSIVE")
            result = function(connection)
            connection.commit()
            return result

    def backup(self, target):
        with self.connected() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))


@exercise.another_way
class FromTheCompanion:
    """The companion's own functions, put together."""

    def __init__(self, path, timeout=5.0):
        self.connection = storage.open_db(path, busy_timeout=timeout)

    def write(self, function):
        with storage.write(self.connection) as connection:
            return function(connection)

    def backup(self, target):
        storage.backup(self.connection, target)


@exercise.wrong("sidecars")
class ReceivedPattern(Database):
    """The received answer: the files beside the database are removed before it is opened."""

    def __init__(self, path, timeout=5.0):
        for suffix in ("-shm", "-wal", "-journal"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        super().__init__(path, timeout)


@exercise.wrong("one-transaction")
class DeferredBegin(Database):
    """A timeout and a plain BEGIN: the read comes before the lock, and cannot become a write."""

    def write(self, function):
        self.connection.execute("BEGIN")
        try:
            result = function(self.connection)
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        return result


@exercise.wrong("one-transaction")
class PythonsDefault(Database):
    """Python begins the transaction at the first write: the read stands outside of it."""

    def __init__(self, path, timeout=5.0):
        self.connection = sqlite3.connect(path, timeout=timeout)
        self.connection.execute("PRAGMA journal_mode = WAL")

    def write(self, function):
        with self.connection:
            return function(self.connection)


@exercise.wrong("one-transaction")
class ImmediateByIsolationLevel(PythonsDefault):
    """isolation_level="IMMEDIATE" changes how Python begins, not when: still after the read."""

    def __init__(self, path, timeout=5.0):
        super().__init__(path, timeout)
        self.connection.isolation_level = "IMMEDIATE"


@exercise.wrong("rollback")
class CommitsInFinally(Database):
    """Commits on every way out, so that half a change is kept."""

    def write(self, function):
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            return function(self.connection)
        finally:
            self.connection.execute("COMMIT")


@exercise.wrong("rollback")
class CatchesExceptionOnly(Database):
    """KeyboardInterrupt is no Exception: an interrupted cell keeps the lock."""

    def write(self, function):
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = function(self.connection)
            self.connection.execute("COMMIT")
        except Exception:
            self.connection.execute("ROLLBACK")
            raise
        return result


@exercise.wrong("readers")
class DefaultJournal(Database):
    """The rollback journal: a commit has to wait until nobody reads."""

    def __init__(self, path, timeout=5.0):
        self.connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)


@exercise.wrong("backup")
class CopiesTheFile(Database):
    """Copies the database file alone; what is committed may still be in the -wal beside it."""

    def __init__(self, path, timeout=5.0):
        super().__init__(path, timeout)
        self.path = path

    def backup(self, target):
        shutil.copy(self.path, target)


@exercise.wrong("wait")
class NoWaiting(Database):
    """The timeout is accepted and not used."""

    def __init__(self, path, timeout=5.0):
        super().__init__(path, 0)


@exercise.wrong("give-up")
class SwallowsTheError(Database):
    """Prints the error and goes on as if the row had been written."""

    def write(self, function):
        try:
            return super().write(function)
        except sqlite3.OperationalError as error:
            print(error)
            return None


@exercise.wrong("commit")
class NeverCommits(Database):
    """The transaction stays open: nobody else sees a thing, and nobody else can write."""

    def write(self, function):
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
        return function(self.connection)


@exercise.wrong("give-up")
class RetriesForEver(Database):
    """Tries again until it works: when a holder hangs, everybody hangs."""

    def write(self, function):
        while True:
            try:
                return super().write(function)
            except sqlite3.OperationalError:
                continue
