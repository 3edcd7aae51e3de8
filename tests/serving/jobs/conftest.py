"""What the tests of jobs share: both homes with a clock that is moved by hand, and small files."""

from __future__ import annotations

import psycopg
import pytest

from companion.instruments.clocks import FakeClock
from companion.instruments.postgresql_server import find_postgresql, postgresql_server
from companion.serving.jobs import Jobs
from companion.serving.jobs.homes.postgresql import PostgresqlHome
from companion.serving.jobs.homes.sqlite import SqliteHome
from companion.serving.jobs.uploads import Uploads
from companion.transactions import simulate

START = 1_790_000_000.0


class ServerClock:
    """The clock of a database, as a table that a test moves forward."""

    SQL = "SELECT now FROM test_clock"

    def __init__(self, url):
        self._url = url
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE IF EXISTS test_clock, parts, rejects, jobs CASCADE")
            connection.execute("CREATE TABLE test_clock (now double precision NOT NULL)")
            connection.execute("INSERT INTO test_clock VALUES (%s)", [START])

    def advance(self, seconds):
        with psycopg.connect(self._url) as connection:
            connection.execute("UPDATE test_clock SET now = now + %s", [seconds])


@pytest.fixture(scope="session")
def postgresql_url():
    if find_postgresql() is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    with postgresql_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def home_and_clock(request, tmp_path):
    if request.param == "sqlite":
        clock = FakeClock(START)
        home = SqliteHome(tmp_path / "jobs.db", clock=clock)
    else:
        url = request.getfixturevalue("postgresql_url")
        clock = ServerClock(url)
        home = PostgresqlHome(url, clock=ServerClock.SQL)
    yield home, clock
    home.close()


@pytest.fixture
def home(home_and_clock):
    return home_and_clock[0]


@pytest.fixture
def clock(home_and_clock):
    return home_and_clock[1]


@pytest.fixture
def jobs(home, tmp_path):
    return Jobs(home, Uploads(tmp_path / "uploads", max_bytes=10 << 20), most_rejects=50)


@pytest.fixture
def sqlite_clock():
    return FakeClock(START)


@pytest.fixture
def sqlite_jobs(tmp_path, sqlite_clock):
    home = SqliteHome(tmp_path / "jobs.db", clock=sqlite_clock)
    yield Jobs(home, Uploads(tmp_path / "uploads", max_bytes=10 << 20), most_rejects=50)
    home.close()


@pytest.fixture(scope="session")
def transactions():
    """A thousand simulated transactions, without what nobody knows when a card is used."""
    return simulate(1000, seed=7).drop(columns=["is_fraud", "scenario", "label_time"])


@pytest.fixture(scope="session")
def parquet_file(transactions, tmp_path_factory):
    path = tmp_path_factory.mktemp("batches") / "batch.parquet"
    transactions.to_parquet(path, index=False)
    return path
