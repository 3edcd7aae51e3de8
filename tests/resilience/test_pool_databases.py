"""The engine on a real PostgreSQL server and on SQLite: alive, within budget, quick to refuse."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from companion.instruments.postgresql_server import find_postgresql, postgresql_server
from companion.resilience.pool import PoolExhaustedError, engine_for


@pytest.fixture(scope="module")
def server():
    if find_postgresql() is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    with postgresql_server() as running:
        yield running


@pytest.fixture
def make():
    """Engines that are disposed of at the end."""
    with ExitStack() as stack:

        def engine(url, **settings):
            made = engine_for(url, **{"workers": 1, "max_connections": 20, **settings})
            stack.callback(made.dispose)
            return made

        yield engine


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path}/features.db"


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request):
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    return request.getfixturevalue("server").url


def kill_backends(server):
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def one(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT 1")).scalar_one()


def test_what_was_committed_is_there_and_what_failed_is_not(make, url):
    engine = make(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS seen"))
        connection.execute(text("CREATE TABLE seen (customer_id bigint, mean float)"))
        connection.execute(text("INSERT INTO seen VALUES (7, 12.5)"))
    with pytest.raises(DatabaseError), engine.begin() as connection:  # noqa: PT012
        connection.execute(text("INSERT INTO seen VALUES (8, 1.0)"))
        connection.execute(text("SELECT nothing FROM nowhere"))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT customer_id, mean FROM seen")).all()
    assert found == [(7, 12.5)]


def test_a_connection_comes_back_when_the_block_fails(make, url):
    engine = make(url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    for _ in range(3):
        with pytest.raises(KeyError), engine.connect():
            raise KeyError
    assert one(engine) == 1


def test_exhaustion_is_an_error_with_a_name_within_the_timeout(make, url):
    engine = make(url, pool_size=1, max_overflow=1, pool_timeout=0.05)
    with engine.connect(), engine.connect():
        began = time.monotonic()
        with pytest.raises(PoolExhaustedError) as refused:
            engine.connect()
        took = time.monotonic() - began
    assert (refused.value.most, refused.value.waited) == (2, 0.05)
    assert isinstance(refused.value, PoolTimeoutError)
    assert took < 2
    assert one(engine) == 1


def test_threads_share_the_connections_and_all_are_served(make, url):
    engine = make(url, pool_size=2, max_overflow=1, pool_timeout=2)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(one(engine))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 30
    assert engine.pool.checkedout() == 0


def test_killed_backends_are_not_noticed_by_the_next_query(make, server):
    engine = make(server.url)
    assert one(engine) == 1
    kill_backends(server)
    assert one(engine) == 1


def test_without_the_ping_the_next_query_fails(server):
    bare = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    assert one(bare) == 1
    kill_backends(server)
    with pytest.raises(OperationalError):
        one(bare)
    bare.dispose()


def test_a_slow_statement_is_cancelled(make, server):
    engine = make(server.url, statement_timeout=0.05)
    with engine.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(20)"))
    assert one(engine) == 1


def test_options_of_the_url_stay(make, server):
    engine = make(f"{server.url}&options=-c%20work_mem%3D5MB", statement_timeout=1.5)
    with engine.connect() as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("work_mem", "statement_timeout")
        ]
    assert shown == ["5MB", "1500ms"]


WORKER = """
import sys, threading
from sqlalchemy import text
from companion.resilience.pool import PoolExhaustedError, engine_for

engine = engine_for(sys.argv[1], workers=2, max_connections=16, pool_timeout=0.2)
held, done = [], threading.Event()

def hold():
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            held.append(1)
            done.wait()
    except PoolExhaustedError:
        refused.append(1)

refused = []
threads = [threading.Thread(target=hold) for _ in range(10)]
for thread in threads: thread.start()
while len(held) + len(refused) < 10: done.wait(0.01)
print(len(held), len(refused), flush=True)
sys.stdin.readline()
done.set()
"""


def test_two_processes_together_stay_within_the_budget(server):
    url = f"{server.url}&application_name=budget"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [process.stdout.readline().split() for process in processes]
        with psycopg.connect(server.url) as admin:
            [open_now] = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'budget'"
            ).fetchone()
    finally:
        for process in processes:
            process.communicate("stop\n", timeout=20)
    assert said == [["3", "7"]] * 2
    assert open_now == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(make, server):
    engine = make(server.url)
    backend = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        of_the_parent = connection.execute(backend).scalar_one()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with engine.connect() as connection:
                os.write(writing, str(connection.execute(backend).scalar_one()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        of_the_child = int(pipe.read())
    with engine.connect() as connection:
        assert connection.execute(backend).scalar_one() == of_the_parent
    assert of_the_child != of_the_parent


def test_sqlite_is_opened_so_that_readers_do_not_wait(make, sqlite_url):
    engine = make(sqlite_url, statement_timeout=0.05)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter AS SELECT 0 AS n"))
    with engine.begin() as writer:
        writer.execute(text("UPDATE counter SET n = 1"))
        with engine.connect() as reader:
            assert reader.execute(text("SELECT n FROM counter")).scalar_one() == 0
            pragmas = {
                name: reader.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 50,
    }


def test_sqlite_refuses_a_write_that_rests_on_an_old_read(make, sqlite_url):
    engine = make(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter AS SELECT 0 AS n"))
    with engine.begin() as first:
        first.execute(text("SELECT n FROM counter")).scalar_one()
        with engine.begin() as second:
            second.execute(text("UPDATE counter SET n = n + 1"))
        with pytest.raises(OperationalError, match="locked"):
            first.execute(text("UPDATE counter SET n = 1"))


def test_a_sqlite_file_in_another_mode_is_turned_to_wal(make, sqlite_url, tmp_path):
    old = sqlite3.connect(tmp_path / "features.db")
    old.execute("CREATE TABLE counter (n)")
    old.close()
    engine = make(sqlite_url)
    with engine.connect() as connection:
        connection.execute(text("SELECT n FROM counter")).all()
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
