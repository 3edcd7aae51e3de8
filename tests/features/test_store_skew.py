"""Over random histories: offline is what a slow reader would say, and online is offline for now.

Histories have ties in both times, late rows, corrections, duplicates, gaps and backfills, ingested
in any order and in any number of frames.
"""

import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from companion.features.store import FeatureStore, FeatureView, open_home
from companion.instruments.redis_server import find_redis_server, redis_server

START = datetime(2026, 3, 1, tzinfo=UTC)
TTL = timedelta(hours=6)
VIEW = FeatureView("spending", {"customer_id": "int64"}, {"mean": "float64", "n": "Int64"}, TTL)
DTYPES = {"customer_id": "int64", "mean": "float64", "n": "Int64"}

hours = st.integers(0, 12)
values = st.one_of(st.none(), st.integers(-3, 3))
# (customer, event hour, created hour): created before the event is odd, and may happen.
identities = st.tuples(st.integers(0, 3), hours, hours)
histories = st.dictionaries(identities, st.tuples(values, values), max_size=14)
questions = st.lists(st.tuples(st.integers(0, 5), hours), min_size=1, max_size=6)
slow_ok = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def redis_url():
    if find_redis_server() is None:
        pytest.skip("there is no Redis server on this machine")
    with redis_server() as server:
        yield server.url


def at(hour):
    return START + timedelta(hours=hour)


def frame_of(facts):
    columns = {
        "customer_id": [key for (key, _, _), _ in facts],
        "event_time": pd.DatetimeIndex([at(event) for (_, event, _), _ in facts], tz="UTC"),
        "created_time": pd.DatetimeIndex([at(created) for (_, _, created), _ in facts], tz="UTC"),
        "mean": [mean for _, (mean, _) in facts],
        "n": [n for _, (_, n) in facts],
    }
    return pd.DataFrame(columns).astype(DTYPES)


def ingest_in_parts(store, facts, draw):
    """All facts, shuffled, some twice, in up to three frames."""
    shuffled = draw(st.permutations(list(facts.items())))
    twice = draw(st.lists(st.sampled_from(shuffled), max_size=3)) if shuffled else []
    todo = [*shuffled, *twice]
    cuts = sorted(draw(st.lists(st.integers(0, len(todo)), max_size=2)))
    for begin, end in zip([0, *cuts], [*cuts, len(todo)], strict=True):
        store.ingest(VIEW, frame_of(todo[begin:end]))


def slow_answer(facts, customer, moment):
    """(mean, n, event hour) as somebody with a pencil would find it."""
    visible = [
        (event, created, seen)
        for (key, event, created), seen in facts.items()
        if key == customer and event <= moment and created <= moment
    ]
    if not visible:
        return None, None, None
    event, _, (mean, n) = max(visible, key=lambda row: row[:2])
    too_old = timedelta(hours=moment - event) > TTL
    return (None, None, event) if too_old else (mean, n, event)


def missing_as_none(value):
    return None if value is pd.NA or value is pd.NaT or math.isnan(value) else value


@slow_ok
@given(data=st.data(), facts=histories, asked=questions)
def test_as_of_is_what_a_slow_reader_finds(data, facts, asked):
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder)
        store.register(VIEW)
        ingest_in_parts(store, facts, data.draw)
        entities = pd.DataFrame(asked, columns=["customer_id", "hour"])
        entities["event_time"] = pd.DatetimeIndex([at(hour) for hour in entities["hour"]])
        found = store.as_of(VIEW, entities)
    for position, (customer, hour) in enumerate(asked):
        mean, n, event = slow_answer(facts, customer, hour)
        row = found.iloc[position]
        assert missing_as_none(row["mean"]) == mean
        assert missing_as_none(row["n"]) == n
        if event is None:
            assert row["spending_age"] is pd.NaT
        else:
            assert row["spending_event_time"] == at(event)
            assert row["spending_age"] == timedelta(hours=hour - event)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@slow_ok
@given(data=st.data(), facts=histories, moments=st.lists(hours, min_size=1, max_size=3))
def test_online_is_offline_as_of_now(kind, request, data, facts, moments):
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder, "offline"), home=fresh_home(kind, request, folder))
        store.register(VIEW)
        ingest_in_parts(store, facts, data.draw)
        customers = pd.DataFrame({"customer_id": [3, 0, 5, 1, 0, 2]}, index=[9, 1, 1, 0, 4, 5])
        for now in sorted(moments):
            store.materialize(VIEW, at(now))
            offline = store.as_of(VIEW, customers.assign(t=pd.Timestamp(at(now))), time="t")
            online = store.online_frame(VIEW, customers, at(now))
            assert_frame_equal(online, offline.drop(columns="t"))
        store.home.close()


@slow_ok
@given(data=st.data(), facts=histories, moments=st.lists(hours, min_size=2, max_size=4))
def test_online_never_goes_back_in_time(data, facts, moments):
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder)
        store.register(VIEW)
        before = dict.fromkeys(range(4), at(-1))
        todo = data.draw(st.permutations(list(facts.items())))
        for step, now in enumerate(moments):  # in any order, as late machines do it
            store.ingest(VIEW, frame_of(todo[step :: len(moments)]))
            store.materialize(VIEW, at(now))
            for customer, served in enumerate(store.online(VIEW, range(4), at(99))):
                after = served.event_time or at(-1)
                assert after >= before[customer]
                before[customer] = after


def fresh_home(kind, request, folder):
    if kind != "redis":
        return open_home({"memory": "memory:", "sqlite": f"sqlite:///{folder}/online.db"}[kind])
    from redis import Redis

    url = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as client:
        client.flushall()
    return open_home(url, timeout=30)
