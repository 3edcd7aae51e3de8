"""Q26 · Database connection pools: the exercise, its checks, and the mistakes they catch."""

import sqlite3
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from inspect import isfunction
from pathlib import Path

from sqlalchemy import Engine, column, create_engine, select, table, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool

from companion.study import Exercise, Stage

exercise = Exercise(
    "Database",
    hints={
        "start": (
            "Two methods: one makes the engine, one asks it for a row.",
            "self.engine = create_engine(url, …) makes it, and `with self.engine.connect() as c:` "
            "asks it.",
            "`.mappings().one_or_none()` gives something that dict() takes, or None.",
        ),
        "budget": (
            "A pool belongs to one process. How many processes are there?",
            "Each worker's share is (max_connections - reserve) // workers, and it holds for "
            "pool_size and max_overflow together.",
            "Set max_overflow yourself: left out it is 10, and NullPool has no limit at all.",
        ),
        "zero": (
            "A share of one connection. What is your pool_size then?",
            "pool_size=0 means no limit in SQLAlchemy: keep at least one, and take the overflow "
            "from what is left.",
        ),
        "refuse": (
            "There is not one connection for each worker. When should somebody find out?",
            "When the share is below 1, raise ValueError, with the numbers in the message.",
        ),
        "timeout": (
            "All connections are in use. How long does a request wait for one?",
            "SQLAlchemy's default is 30 s; pass pool_timeout, at most 2.",
        ),
        "ping": (
            "The server ended this connection while it lay in the pool. Who notices?",
            "pool_pre_ping=True asks each connection before it is handed out, and replaces a "
            "dead one; pool_recycle looks only at its age.",
        ),
        "text": (
            "SQLAlchemy 2 runs statements, not strings, and its parameters have names.",
            'connection.execute(text("… = :customer"), {"customer": customer_id})',
        ),
        "bind": (
            "Whoever chooses the customer_id can write SQL here.",
            "Never put a value into the text of a statement; name it (:customer) and hand the "
            "value over beside it.",
        ),
        "missing": (
            "A new customer has no row yet.",
            "Ask for one row or none (one_or_none, first), and return None for none.",
        ),
        "errors": (
            "The database failed, and your caller takes it for a customer without a row.",
            "Let errors of the database through; only an empty result is None.",
        ),
        "give-back": (
            "The statement failed. Where is the connection now?",
            "Use it in a `with` block, which gives it back whatever happens.",
        ),
    },
)


class Features:
    """An SQLite file with a table of features, and engines that end with it."""

    def __init__(self, folder, rng):
        self.path = Path(folder) / "features.db"
        self.url = f"sqlite:///{self.path}"
        self.rows = {int(n): float(rng.integers(1, 1000)) / 4 for n in rng.permutation(50)[:8] + 1}
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE customer_features (customer_id bigint, mean float)")
        connection.executemany("INSERT INTO customer_features VALUES (?, ?)", self.rows.items())
        connection.commit()
        connection.close()


@contextmanager
def features(case):
    with tempfile.TemporaryDirectory() as folder:
        yield Features(folder, case.rng)


@contextmanager
def made(attempt, url, *, workers=2, max_connections=30, **settings):
    database = attempt(url, workers=workers, max_connections=max_connections, **settings)
    try:
        yield database
    finally:
        if isinstance(getattr(database, "engine", None), Engine):
            database.engine.dispose()


def most_connections(engine, stop):
    """How many can be held at once; counting ends at `stop`."""
    engine.pool._timeout = 0.01
    with ExitStack() as taken:
        for number in range(stop):
            try:
                taken.enter_context(engine.connect())
            except PoolTimeoutError:
                return number
    return stop


def held(engine):
    """How many connections are out, for a pool that counts them."""
    return engine.pool.checkedout() if hasattr(engine.pool, "checkedout") else 0


@exercise.check(Stage.TYPE, hint="start")
def an_engine_is_made(attempt, case):
    """self.engine is a SQLAlchemy engine"""
    with features(case) as data, made(attempt, data.url) as database:
        got = type(getattr(database, "engine", None)).__name__
        case.equal(given="the engine of Database(sqlite file, …)", expected="Engine", got=got)


@exercise.check(Stage.SHAPE, hint="text")
def a_row_is_found(attempt, case):
    """fetch_features finds the row of that customer"""
    with features(case) as data, made(attempt, data.url) as database:
        for customer, mean in list(data.rows.items())[:3]:
            try:
                got = database.fetch_features(customer)
            except SQLAlchemyError as error:
                got = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            case.true(
                got is not None and not isinstance(got, str),
                given=f"fetch_features({customer})",
                expected=f"the row with mean {mean}",
                got=got,
            )


@exercise.check(Stage.SHAPE, hint="start")
def a_row_is_a_dictionary(attempt, case):
    """the row comes as a dictionary"""
    with features(case) as data, made(attempt, data.url) as database:
        customer, mean = next(iter(data.rows.items()))
        got = database.fetch_features(customer)
        case.equal(
            given=f"fetch_features({customer})",
            expected={"customer_id": customer, "mean": mean},
            got=got,
        )
        case.equal(given="its type", expected="dict", got=type(got).__name__)


@exercise.check(Stage.RANGE, hint="budget")
def all_workers_together_keep_to_the_budget(attempt, case):
    """workers × the most connections of one stay at or below max_connections - reserve"""
    with features(case) as data:
        for _ in range(4):
            workers, reserve = int(case.rng.integers(2, 9)), int(case.rng.integers(3, 15))
            limit = reserve + workers * int(case.rng.integers(2, 9)) + int(case.rng.integers(2))
            settings = {"workers": workers, "max_connections": limit, "reserve": reserve}
            share = (limit - reserve) // workers
            with made(attempt, data.url, **settings) as database:
                got = most_connections(database.engine, share + 20)
            case.true(
                1 <= got <= share,
                given=", ".join(f"{name}={value}" for name, value in settings.items()),
                expected=f"1 to {share} connections in one worker",
                got=f"{got} or more" if got == share + 20 else got,
            )


@exercise.check(Stage.RANGE, hint="zero")
def a_share_of_one_is_one(attempt, case):
    """a share of one connection is one connection"""
    workers = int(case.rng.integers(3, 9))
    with features(case) as data:
        with made(attempt, data.url, workers=workers, max_connections=workers + 10) as database:
            got = most_connections(database.engine, 30)
        case.equal(
            given=f"workers={workers}, max_connections={workers + 10}, reserve=10",
            expected=1,
            got=got,
        )


@exercise.check(Stage.RANGE, hint="timeout")
def nobody_waits_longer_than_two_seconds(attempt, case):
    """the wait for a connection ends within 2 s"""
    with features(case) as data, made(attempt, data.url) as database:
        got = database.engine.pool._timeout
        case.true(0 < got <= 2, given="engine.pool", expected="a timeout up to 2 s", got=got)


@exercise.check(Stage.VALUE, hint="refuse")
def an_impossible_budget_is_refused(attempt, case):
    """ValueError where there is not one connection for each worker"""
    for workers, limit, reserve in ((20, 25, 10), (1, 10, 10), (4, 5, 10)):
        case.raises(
            ValueError,
            lambda w=workers, m=limit, r=reserve: attempt(
                "sqlite:///unused.db", workers=w, max_connections=m, reserve=r
            ),
            given=f"workers={workers}, max_connections={limit}, reserve={reserve}",
        )


@exercise.check(Stage.VALUE, hint="ping")
def a_dead_connection_is_not_handed_out(attempt, case):
    """a connection that was ended behind the pool's back is replaced, not handed out"""
    with features(case) as data, made(attempt, data.url) as database:
        customer = next(iter(data.rows))
        with database.engine.connect() as connection:
            behind_its_back = connection.connection.dbapi_connection
        behind_its_back.close()
        try:
            got = database.fetch_features(customer)
        except SQLAlchemyError as error:
            got = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        case.true(
            isinstance(got, dict),
            given="the pooled connection was closed, then fetch_features",
            expected="the row",
            got=got,
        )


@exercise.check(Stage.VALUE, hint="bind")
def a_value_is_never_sql(attempt, case):
    """what the caller passes is a value, whatever it looks like"""
    with features(case) as data, made(attempt, data.url) as database:
        for customer in ("0 OR 1=1", "0 UNION SELECT 1, 2"):
            try:
                got = database.fetch_features(customer)
            except (SQLAlchemyError, ValueError):
                got = None
            case.equal(given=f"fetch_features({customer!r})", expected=None, got=got)


@exercise.check(Stage.VALUE, hint="missing")
def a_new_customer_has_no_row(attempt, case):
    """None for a customer without a row"""
    with features(case) as data, made(attempt, data.url) as database:
        unknown = 1000 + int(case.rng.integers(1000))
        try:
            got = database.fetch_features(unknown)
        except Exception as error:
            got = type(error).__name__
        case.equal(given=f"fetch_features({unknown}), no row", expected=None, got=got)


@exercise.check(Stage.VALUE, hint="give-back")
def the_connection_goes_back(attempt, case):
    """the connection goes back: after an answer, and after an error"""
    with features(case) as data, made(attempt, data.url) as database:
        kept = [database.fetch_features(customer) for customer in data.rows]
        case.equal(
            given=f"{len(kept)} answers: connections held", expected=0, got=held(database.engine)
        )
        connection = sqlite3.connect(data.path)
        connection.execute("DROP TABLE customer_features")
        connection.close()
        error = case.raises(
            OperationalError,
            lambda: database.fetch_features(1),
            given="the table is gone",
            hint="errors",
        )
        case.equal(
            given=f"{type(error).__name__}: connections held", expected=0, got=held(database.engine)
        )


@exercise.check(Stage.STRESS, hint="give-back")
def a_crowd_is_served(attempt, case):
    """eight threads that share one connection are all served"""
    with (
        features(case) as data,
        made(attempt, data.url, workers=2, max_connections=12) as database,
    ):
        database.engine.pool._timeout, told = 1.0, []

        def work(customer):
            try:
                told.append(database.fetch_features(customer)["mean"])
            except SQLAlchemyError as error:
                told.append(type(error).__name__)

        threads = [threading.Thread(target=work, args=(c,), daemon=True) for c in data.rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4)
        case.equal(
            given="8 threads, a share of one connection: means",
            expected=sorted(data.rows.values()),
            got=sorted(told, key=lambda mean: (isinstance(mean, str), mean)),
        )


@exercise.solution
class Database:
    def __init__(self, url, *, workers, max_connections, reserve=10):
        share = (max_connections - reserve) // workers
        if share < 1:
            raise ValueError(
                f"{max_connections} connections - {reserve} in reserve are not enough for "
                f"{workers} workers"
            )
        pool_size = min(share, 10)
        self.engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=min(share - pool_size, 5),
            pool_timeout=1.0,
            pool_pre_ping=True,
        )

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        with self.engine.connect() as connection:
            row = connection.execute(query, {"customer": customer_id}).mappings().one_or_none()
        return None if row is None else dict(row)


@exercise.another_way
class DatabaseOfExpressions:
    """A different shape: a pool class said aloud, no overflow, and the query as an expression."""

    FEATURES = table("customer_features", column("customer_id"), column("mean"))

    def __init__(self, url, *, workers, max_connections, reserve=10):
        for size in range(5, 0, -1):
            if workers * size <= max_connections - reserve:
                self.engine = create_engine(
                    url,
                    poolclass=QueuePool,
                    pool_size=size,
                    max_overflow=0,
                    pool_timeout=2,
                    pool_pre_ping=True,
                    pool_recycle=1800,
                )
                return
        raise ValueError(f"no connection left for each of {workers} workers")

    def fetch_features(self, customer_id):
        found = select(self.FEATURES).where(self.FEATURES.c.customer_id == customer_id)
        with self.engine.begin() as connection:
            for row in connection.execute(found):
                return row._asdict()
        return None


def with_engine(**changes):
    """An `__init__` whose engine is right but for `changes`."""

    def make(self, url, *, workers, max_connections, reserve=10):
        share = (max_connections - reserve) // workers
        if share < 1:
            raise ValueError("too few connections")
        settings = {"pool_size": share, "max_overflow": 0, "pool_timeout": 1, "pool_pre_ping": True}
        numbers = {"share": share, "limit": max_connections, "reserve": reserve}
        settings |= {
            name: value(**numbers) if isfunction(value) else value
            for name, value in changes.items()
        }
        self.engine = create_engine(
            url, **{name: value for name, value in settings.items() if value is not None}
        )

    return make


@exercise.wrong("text")
class ReceivedPattern(Database):
    """The received answer: a plain string with a question mark and a tuple."""

    __init__ = with_engine(pool_size=10, max_overflow=5, pool_timeout=30, pool_pre_ping=False)

    def fetch_features(self, customer_id):
        with self.engine.connect() as connection:
            return connection.execute(
                "SELECT * FROM customer_features WHERE customer_id = ?", (customer_id,)
            )


@exercise.wrong("text")
class QuestionMark(Database):
    """A statement by text(), and still a question mark with a tuple."""

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = ?")
        with self.engine.connect() as connection:
            return dict(connection.execute(query, (customer_id,)).mappings().one())


@exercise.wrong("start")
class ReturnsThePool(Database):
    """Hands out the pool, which is what everybody talks about."""

    def __init__(self, url, *, workers, max_connections, reserve=10):
        super().__init__(url, workers=workers, max_connections=max_connections, reserve=reserve)
        self.engine = self.engine.pool


@exercise.wrong("start")
class ReturnsARow(Database):
    """Returns SQLAlchemy's row, a tuple with names."""

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        with self.engine.connect() as connection:
            return connection.execute(query, {"customer": customer_id}).one_or_none()


@exercise.wrong("budget")
class TenForEverybody(Database):
    """pool_size=10 in each worker, however many there are."""

    __init__ = with_engine(pool_size=10, max_overflow=5)


@exercise.wrong("budget")
class ForgetsTheOverflow(Database):
    """The share as pool_size, and ten more by default."""

    __init__ = with_engine(max_overflow=None)


@exercise.wrong("budget")
class WholeServerForEach(Database):
    """Gives every worker what all of them have."""

    __init__ = with_engine(pool_size=lambda limit, reserve, **_: limit - reserve)


@exercise.wrong("budget")
class NoPoolNoLimit(Database):
    """NullPool: a new connection for each query, as many as are asked for."""

    __init__ = with_engine(poolclass=NullPool, pool_size=None, max_overflow=None, pool_timeout=None)


@exercise.wrong("zero")
class HalfAndHalf(Database):
    """Half kept, half at peaks; of a share of one, half is zero, which means no limit."""

    __init__ = with_engine(
        pool_size=lambda share, **_: share // 2, max_overflow=lambda share, **_: share - share // 2
    )


@exercise.wrong("refuse")
class AtLeastOne(Database):
    """One connection for each worker whatever the server can bear."""

    def __init__(self, url, *, workers, max_connections, reserve=10):
        share = max(1, (max_connections - reserve) // workers)
        self.engine = create_engine(
            url, pool_size=share, max_overflow=0, pool_timeout=1, pool_pre_ping=True
        )


@exercise.wrong("timeout")
class HalfAMinute(Database):
    """Waits 30 s, longer than any caller."""

    __init__ = with_engine(pool_timeout=None)


@exercise.wrong("ping")
class Recycles(Database):
    """Trusts in pool_recycle, which knows a connection's age and nothing else."""

    __init__ = with_engine(pool_pre_ping=False, pool_recycle=3600)


@exercise.wrong("bind")
class WritesItIn(Database):
    """Writes the value into the statement."""

    def fetch_features(self, customer_id):
        query = text(f"SELECT * FROM customer_features WHERE customer_id = {customer_id}")
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)


@exercise.wrong("missing")
class ExactlyOne(Database):
    """Insists on a row."""

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        with self.engine.connect() as connection:
            return dict(connection.execute(query, {"customer": customer_id}).mappings().one())


@exercise.wrong("errors")
class NothingFound(Database):
    """Says None for every error: a broken table looks like a new customer."""

    def fetch_features(self, customer_id):
        try:
            return super().fetch_features(customer_id)
        except SQLAlchemyError:
            return None


@exercise.wrong("give-back")
class ClosesIfAllGoesWell(Database):
    """Closes at the end of the function, which an error never reaches."""

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        connection = self.engine.connect()
        row = connection.execute(query, {"customer": customer_id}).mappings().one_or_none()
        connection.close()
        return None if row is None else dict(row)


@exercise.wrong("give-back")
class TwoAtATime(Database):
    """Takes a second connection while it holds the first; a crowd that does so waits for itself."""

    def fetch_features(self, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        with self.engine.connect() as first:
            first.execute(text("SELECT 1"))
            with self.engine.connect() as second:
                row = second.execute(query, {"customer": customer_id}).mappings().one_or_none()
        return None if row is None else dict(row)
