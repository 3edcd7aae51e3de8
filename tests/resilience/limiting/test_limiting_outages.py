"""What a limiter decides while its Redis is down, hangs, forgets its scripts or changes places."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from companion.instruments import FakeClock, free_port
from companion.instruments.redis_server import find_redis_server, redis_server
from companion.resilience.limiting import (
    GCRA,
    AsyncRedisStore,
    FixedWindow,
    Limit,
    RateLimiter,
    RedisStore,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

AGES = Limit(rate=1e-6, burst=10)
PATIENT = 5.0

needs_redis = pytest.mark.skipif(
    find_redis_server() is None, reason="there is no Redis server on this machine"
)


class Sync:
    """Ask through a `RedisStore`."""

    def __init__(self, url, algorithm=GCRA, **settings):
        self.store = RedisStore(url, **settings)
        self.limiter = RateLimiter(algorithm(AGES), self.store)

    def hit(self, key="k", cost=1.0):
        return self.limiter.hit(key, cost)


class Async:
    """Ask through an `AsyncRedisStore`, on one loop as a service would."""

    runner: asyncio.Runner

    def __init__(self, url, algorithm=GCRA, **settings):
        self.store = AsyncRedisStore(url, **settings)
        self.limiter = RateLimiter(algorithm(AGES), self.store)

    def hit(self, key="k", cost=1.0):
        return self.runner.run(self.limiter.ahit(key, cost))


both_ways = pytest.mark.parametrize("ask", [Sync, Async], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def one_loop() -> Iterator[None]:
    with asyncio.Runner() as Async.runner:
        yield


def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


class Hung:
    """A server that takes connections and says nothing; `met` counts them."""

    def __init__(self):
        self.met = 0
        self._taken = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self):
        while True:
            try:
                self._taken.append(self._socket.accept())
            except OSError:
                return
            self.met += 1

    def close(self):
        # Not closed alone: a thread that waits in accept() would not notice.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection, _ in self._taken:
            connection.close()


@pytest.fixture
def hung() -> Iterator[Hung]:
    server = Hung()
    yield server
    server.close()


# ----- the setting ---------------------------------------------------------------------------


@both_ways
def test_open_allows_everything(ask):
    asked = ask(nowhere(), when_down="open")
    decisions = [asked.hit() for _ in range(50)]
    assert all(decision.allowed for decision in decisions)
    assert decisions[-1].remaining == 10
    assert asked.store.down


@both_ways
def test_closed_allows_nothing_and_says_when_it_tries_again(ask):
    asked = ask(nowhere(), when_down="closed", rest=2.5)
    decision = asked.hit()
    assert not decision.allowed
    assert decision.remaining == 0
    assert decision.retry_after == 2.5
    assert not decision.never


@both_ways
def test_local_keeps_the_limit_in_this_process(ask):
    asked = ask(nowhere(), when_down="local")
    assert sum(asked.hit().allowed for _ in range(50)) == 10
    assert asked.hit("somebody else").allowed


@both_ways
@pytest.mark.parametrize("when_down", ["open", "closed", "local"])
def test_a_cost_above_the_limit_is_refused_for_ever_all_the_same(ask, when_down):
    assert ask(nowhere(), when_down=when_down).hit(cost=11).never


@pytest.mark.parametrize("kind", [RedisStore, AsyncRedisStore])
def test_settings_that_make_no_sense_are_refused(kind):
    with pytest.raises(ValueError, match="when_down"):
        kind(nowhere(), when_down="sometimes")
    for timeout in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            kind(nowhere(), timeout=timeout)
    with pytest.raises(ValueError, match="seconds"):
        kind(nowhere(), rest=-1)


@both_ways
def test_an_outage_is_logged_once_with_its_reason_and_without_the_password(ask, caplog):
    clock = FakeClock()
    url = nowhere().replace("//", "//user:hunter2@")
    with caplog.at_level(logging.WARNING, "companion.resilience.limiting"):
        asked = ask(url, when_down="local", rest=1.0, clock=clock)
        for _ in range(10):
            asked.hit()
            clock.advance(0.5)
    (record,) = caplog.records
    assert "local" in record.message
    assert "refused" in record.message.lower() or "connect" in record.message.lower()
    assert "hunter2" not in caplog.text


# ----- a server that hangs -------------------------------------------------------------------


@both_ways
def test_a_server_that_hangs_is_waited_for_once_and_briefly(ask, hung):
    begun = time.monotonic()
    asked = ask(hung.url, when_down="open", timeout=0.05, rest=1.0, clock=FakeClock())
    assert all(asked.hit().allowed for _ in range(100))
    # The client's own default would be five seconds, ten times over; this leaves a wide margin.
    assert time.monotonic() - begun < 2.0
    assert hung.met == 1


@both_ways
def test_after_its_rest_it_is_asked_again_by_one(ask, hung):
    clock = FakeClock()
    asked = ask(hung.url, when_down="open", timeout=0.05, rest=1.0, clock=clock)
    for _ in range(10):
        asked.hit()
    clock.advance(1.01)
    for _ in range(10):
        asked.hit()
    assert hung.met == 2


def test_of_many_tasks_none_waits_longer_than_one_timeout_for_a_server_that_hangs(hung):
    async def scenario():
        store = AsyncRedisStore(hung.url, when_down="open", timeout=0.1, rest=60.0)
        limiter = RateLimiter(GCRA(AGES), store)
        decisions = await asyncio.gather(*(limiter.ahit("k") for _ in range(200)))
        assert all(decision.allowed for decision in decisions)

    asyncio.run(scenario())
    assert hung.met == 1


def test_the_loop_goes_down_and_nobody_hangs(hung):
    async def scenario():
        store = AsyncRedisStore(hung.url, timeout=30.0)
        limiter = RateLimiter(GCRA(AGES), store)
        waiting = asyncio.create_task(limiter.ahit("k"))
        await asyncio.sleep(0.01)
        (carrier,) = asyncio.all_tasks() - {waiting, asyncio.current_task()}
        carrier.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())


# ----- a server that was there before --------------------------------------------------------


@needs_redis
@both_ways
def test_a_server_that_is_killed_and_back_is_used_again(ask):
    clock = FakeClock()
    with redis_server() as server:
        asked = ask(server.url, when_down="closed", timeout=PATIENT, rest=1.0, clock=clock)
        assert asked.hit().allowed
        server.process.kill()
        assert not asked.hit().allowed
        assert asked.store.down
        server.process.start()
        assert not asked.hit().allowed, "it has a rest"
        clock.advance(1.01)
        assert asked.hit().allowed
        assert not asked.store.down


@needs_redis
@both_ways
def test_a_connection_that_died_while_it_was_idle_is_replaced_without_an_outage(ask):
    with redis_server() as server:
        asked = ask(server.url, when_down="closed", timeout=PATIENT)
        asked.hit()
        server.process.restart()
        assert asked.hit().remaining == 9
        assert not asked.store.down


@needs_redis
@both_ways
def test_scripts_that_were_flushed_are_sent_again(ask):
    with redis_server() as server, Redis.from_url(server.url) as client:
        for algorithm in (FixedWindow, SlidingLog, SlidingCounter, TokenBucket, GCRA):
            asked = ask(server.url, algorithm, when_down="closed", timeout=PATIENT)
            asked.hit(algorithm.name)
            client.script_flush()
            assert asked.hit(algorithm.name).remaining == pytest.approx(8, abs=1e-3)
            assert not asked.store.down


@needs_redis
@both_ways
def test_counts_survive_a_fail_over_to_a_replica(ask):
    clock = FakeClock()
    with (
        redis_server() as old,
        redis_server() as new,
        Redis.from_url(old.url) as primary,
        Redis.from_url(new.url) as replica,
    ):
        primary.config_set("repl-diskless-sync-delay", 0)
        replica.replicaof(*address_of(old.url))
        settings = {"when_down": "closed", "timeout": PATIENT, "rest": 1.0, "clock": clock}
        before, after = ask(old.url, **settings), ask(new.url, **settings)
        for _ in range(4):
            before.hit()
        deadline = time.monotonic() + 20
        while not (primary.wait(1, 100) and replica.dbsize()):
            assert time.monotonic() < deadline

        assert not after.hit().allowed, "a replica takes no writes"
        assert after.store.down
        replica.replicaof("NO", "ONE")
        old.process.kill()
        clock.advance(1.01)
        assert after.hit().remaining == pytest.approx(5, abs=1e-3)
        assert not after.store.down


@needs_redis
@both_ways
def test_a_server_that_cannot_decide_counts_as_down_and_its_connection_is_kept(ask):
    clock = FakeClock()
    with redis_server() as server, Redis.from_url(server.url) as client:
        asked = ask(server.url, when_down="closed", timeout=PATIENT, rest=1.0, clock=clock)
        asked.hit()
        client.config_set("maxmemory", 1)  # no room for what would have to be written
        assert not asked.hit("another").allowed
        client.config_set("maxmemory", 0)
        clock.advance(1.01)
        connections = client.info("clients")["connected_clients"]
        assert asked.hit("another").allowed
        assert client.info("clients")["connected_clients"] == connections


def address_of(url):
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    return host, int(port)
