"""A process may be killed at any step, and several may write at once: nothing is half done."""

import multiprocessing
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from companion.features.store import FeatureStore, FeatureView, open_home
from companion.instruments.redis_server import find_redis_server, redis_server

# A forkserver's children come from a process without threads, with the libraries already loaded.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pytest", "companion.features.store", "companion.instruments.redis_server"]
)

CHANGES = {"os.mkdir", "os.rename", "os.remove"}
WRITING = os.O_WRONLY | os.O_RDWR
VIEW = FeatureView("spending", {"customer_id": "int64"}, {"mean": "float64"}, None)
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=400)


def rows(number, customers=20):
    """Everybody's value for day `number` is `number`."""
    moment = pd.Timestamp(START + timedelta(days=number))
    return pd.DataFrame(
        {
            "customer_id": range(customers),
            "event_time": moment,
            "created_time": moment,
            "mean": float(number),
        }
    )


def registered(root, url="memory:"):
    store = FeatureStore(root, home=open_home(url, timeout=30))
    store.register(VIEW)
    return store


def means(store):
    return [served.values["mean"] for served in store.online(VIEW, range(20), NOW)]


def ingest_and_die_at_step(root, fatal_step):
    store = registered(root)
    steps = 0

    def count(event, arguments):
        nonlocal steps
        # What only reads leaves the same behind as the step after it.
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            steps += 1
            if steps == fatal_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    store.ingest(VIEW, rows(1))
    os._exit(0)


def materialize_and_die(root, url, after):
    """Be killed when the home has been given `after` records."""
    store = registered(root, url)
    put = store.home.put

    def dying(table, records):
        def until_death():
            for number, record in enumerate(records):
                if number == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield record

        return put(table, until_death())

    store.home.put = dying
    store.materialize(VIEW, NOW)


def materialize_days(root, url, days, together):
    store = registered(root, url)
    together.wait()
    for number in days:
        store.materialize(VIEW, START + timedelta(days=number))


def ingest_days(root, days, together):
    store = registered(root)
    together.wait()
    for number in days:
        store.ingest(VIEW, rows(number))


def run_to_its_end(target, *arguments):
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/online.db"
        return
    if find_redis_server() is None:
        pytest.skip("there is no Redis server on this machine")
    with redis_server() as server:
        yield server.url


def test_killed_before_any_step_an_ingest_leaves_the_old_state_or_the_new_one(tmp_path):
    seen = []
    for step in range(1, 100):
        root = tmp_path / str(step)
        registered(root).ingest(VIEW, rows(0))
        exitcode = run_to_its_end(ingest_and_die_at_step, root, step)
        store = registered(root)
        store.materialize(VIEW, NOW)
        seen.append(set(means(store)))
        store.ingest(VIEW, rows(2))  # a dead writer keeps no lock
        if exitcode == 0:
            break
        assert exitcode == -signal.SIGKILL
    else:
        pytest.fail("the writer never came to its end")
    assert all(values in ({0.0}, {1.0}) for values in seen)
    assert (seen[0], seen[-1]) == ({0.0}, {1.0})
    assert len(seen) > 4


@pytest.mark.parametrize("after", [0, 1, 10])
def test_a_materialisation_that_was_killed_is_completed_by_the_next(tmp_path, shared_url, after):
    store = registered(tmp_path / "offline", shared_url)
    store.ingest(VIEW, rows(0))
    store.materialize(VIEW, NOW)
    store.ingest(VIEW, rows(1))
    exitcode = run_to_its_end(materialize_and_die, tmp_path / "offline", shared_url, after)
    assert exitcode == -signal.SIGKILL
    assert set(means(store)) <= {0.0, 1.0}
    store.materialize(VIEW, NOW)
    assert set(means(store)) == {1.0}


def test_processes_that_materialise_old_and_new_times_at_once_end_with_the_newest(
    tmp_path, shared_url
):
    store = registered(tmp_path / "offline", shared_url)
    store.ingest(VIEW, pd.concat([rows(number) for number in range(30)]))
    together = FORKS.Barrier(3)
    orders = (range(30), range(29, -1, -1), range(0, 30, 2))
    workers = [
        FORKS.Process(
            target=materialize_days, args=(tmp_path / "offline", shared_url, days, together)
        )
        for days in orders
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert set(means(store)) == {29.0}


def test_processes_that_ingest_the_same_rows_at_once_store_them_once(tmp_path):
    together = FORKS.Barrier(3)
    workers = [
        FORKS.Process(target=ingest_days, args=(tmp_path, range(5), together)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(list((tmp_path / "spending/1/rows").iterdir())) - 1 == 5  # and the lock file
    again = registered(tmp_path).ingest(VIEW, rows(3))
    assert (again.new_rows, again.repeated_rows) == (0, 20)
