"""What only Redis can show: round trips, keys as they lie there, and a server that is gone."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from redis import Redis

from companion.features.store import (
    FeatureStore,
    FeatureView,
    OnlineStoreError,
    OnlineStoreUnavailableError,
    open_home,
)
from companion.features.store.homes.redis import RedisHome
from companion.instruments import free_port
from companion.instruments.redis_server import find_redis_server, redis_server

pytestmark = pytest.mark.skipif(
    find_redis_server() is None, reason="there is no Redis server on this machine"
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
VIEW = FeatureView(
    "spending", {"customer_id": "int64"}, {"mean": "float64"}, timedelta(days=7), version=2
)


@pytest.fixture
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
def store(server, tmp_path):
    made = FeatureStore(tmp_path, home=open_home(server.url))
    made.register(VIEW)
    moment = pd.Timestamp(NOW)
    made.ingest(
        VIEW,
        pd.DataFrame(
            {
                "customer_id": range(50),
                "event_time": moment,
                "created_time": moment,
                "mean": 0.5,
            }
        ),
    )
    made.materialize(VIEW, NOW)
    yield made
    made.home.close()


def calls(client):
    return {name: stats["calls"] for name, stats in client.info("commandstats").items()}


def test_fifty_keys_are_one_round_trip(store, server):
    with Redis.from_url(server.url) as client:
        store.online(VIEW, [0], NOW)
        before = calls(client)
        assert len(store.online(VIEW, range(50), NOW)) == 50
        after = calls(client)
    moved = {name: after[name] - before.get(name, 0) for name in after}
    assert {name for name, times in moved.items() if times} == {"cmdstat_mget", "cmdstat_info"}
    assert moved["cmdstat_mget"] == 1


def test_keys_carry_the_views_name_and_version_and_values_can_be_read_by_people(store, server):
    with Redis.from_url(server.url, decode_responses=True) as client:
        assert len(client.keys("features:spending:2:*")) == 50
        value = client.get("features:spending:2:7")
    assert value.endswith(f'["{VIEW.fingerprint}",0.5]')
    assert value[:40].isdigit()


def test_what_is_no_record_is_an_error_with_a_name(store, server):
    with Redis.from_url(server.url) as client:
        client.delete("features:spending:2:7")
        client.lpush("features:spending:2:7", "a list")
    with pytest.raises(OnlineStoreError, match="WRONGTYPE"):
        store.home.put(VIEW.id, [("7", store.home.get(VIEW.id, ["8"])[0])])


def test_a_server_that_is_gone_is_named_and_not_waited_for(store, server):
    server.process.kill()
    began = time.monotonic()
    with pytest.raises(OnlineStoreUnavailableError, match=r"no answer within 0\.25 s") as failed:
        store.online(VIEW, [7], NOW)
    assert time.monotonic() - began < 5  # the client's own default is ten tries
    assert failed.value.timeout == 0.25
    with pytest.raises(OnlineStoreUnavailableError):
        store.materialize(VIEW, NOW)


def test_a_server_that_hangs_is_given_up(store, server):
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OnlineStoreUnavailableError, match="Timeout"):
            store.online(VIEW, [7], NOW)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert store.online(VIEW, [7], NOW)[0].values == {"mean": 0.5}


def test_after_a_restart_it_is_asked_again_and_knows_nothing(store, server):
    server.process.restart()
    assert store.online(VIEW, [7], NOW)[0].values == {"mean": None}
    assert store.materialize(VIEW, NOW).moved == 50


def test_no_server_at_all_is_the_same_error():
    home = RedisHome(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(OnlineStoreUnavailableError):
        home.get("t:1", ["1"])


def test_an_error_names_the_server_without_its_password():
    home = RedisHome(f"redis://:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(OnlineStoreUnavailableError) as failed:
        home.get("t:1", ["1"])
    assert "secret" not in str(failed.value)
    assert failed.value.home.startswith("redis://127.0.0.1:")


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match="timeout is seconds"):
        RedisHome("redis://127.0.0.1", timeout=timeout)
