"""Where cached values live: one suite over the homes, Redis being a real server."""

import asyncio
import os
import signal
import time

import pytest
from redis import Redis

from companion.instruments import FakeClock, free_port
from companion.instruments.redis_server import find_redis_server, redis_server
from companion.resilience.cache import (
    MISSING,
    CacheHomeError,
    CacheUnavailableError,
    MemoryHome,
    open_cache_home,
)


@pytest.fixture(scope="module")
def server():
    if find_redis_server() is None:
        pytest.skip("there is no Redis server on this machine")
    with redis_server() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def home(request):
    if request.param == "redis":
        url = request.getfixturevalue("server").url
        with Redis.from_url(url) as client:
            client.flushall()
    else:
        url = "memory:"
    opened = open_cache_home(url, timeout=5)
    yield opened
    opened.close()


@pytest.fixture
def redis_home(server):
    opened = open_cache_home(server.url, timeout=5)
    yield opened
    opened.close()


def test_what_was_put_is_found_and_nothing_else_is(home):
    home.put("a", {"score": 0.25}, 60)
    assert home.get("a") == {"score": 0.25}
    assert home.get("b") is MISSING


@pytest.mark.parametrize("value", [0, 0.0, False, None, "", [], {}])
def test_a_falsy_value_is_a_value(home, value):
    home.put("a", value, 60)
    assert home.get("a") == value
    assert type(home.get("a")) is type(value)


def test_the_last_value_counts(home):
    home.put("a", 1, 60)
    home.put("a", 2, 60)
    assert home.get("a") == 2


def test_threads_and_event_loops_see_the_same(home):
    async def through_the_loop():
        seen = await home.aget("a"), await home.aget("b")
        await home.aput("c", 3, 60)
        await home.aclose()
        return seen

    home.put("a", 1, 60)
    assert asyncio.run(through_the_loop()) == (1, MISSING)
    assert home.get("c") == 3


def test_memory_forgets_when_the_time_is_over():
    clock = FakeClock()
    home = MemoryHome(clock=clock)
    home.put("a", 1, 10)
    clock.advance(9.99)
    assert home.get("a") == 1
    clock.advance(0.01)
    assert home.get("a") is MISSING
    assert home.size == 0


def test_memory_drops_what_was_not_used_for_longest():
    home = MemoryHome(max_entries=2)
    home.put("a", 1, 60)
    home.put("b", 2, 60)
    home.get("a")
    home.put("c", 3, 60)
    assert [home.get(key) for key in "abc"] == [1, MISSING, 3]
    assert home.size == 2


def test_redis_forgets_by_itself_to_the_millisecond(server, redis_home):
    redis_home.put("a", 1, 2.5)
    redis_home.put("b", 1, 0.0001)
    with Redis.from_url(server.url) as client:
        assert 2000 < client.pttl("prediction:a") <= 2500
        assert client.pttl("prediction:b") in (-2, 0, 1)


def test_a_value_that_is_no_json_is_refused_loudly(redis_home):
    with pytest.raises(TypeError, match="complex"):
        redis_home.put("a", 1j, 60)
    with pytest.raises(TypeError, match="complex"):
        asyncio.run(redis_home.aput("a", 1j, 60))


def test_an_entry_that_somebody_else_wrote_is_an_error_with_a_name(server, redis_home):
    with Redis.from_url(server.url) as client:
        client.set("prediction:a", b"\x80\x04pickle")
        client.lpush("prediction:b", 1)
    for key in "ab":
        with pytest.raises(CacheHomeError) as refused:
            redis_home.get(key)
        assert not isinstance(refused.value, CacheUnavailableError)
    with pytest.raises(CacheHomeError):
        asyncio.run(redis_home.aget("a"))


def test_a_full_server_refuses_by_name_and_counts_as_reachable(server, redis_home):
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(CacheHomeError, match="memory") as refused:
                redis_home.put("a", 1, 60)
        finally:
            client.config_set("maxmemory", 0)
    assert not isinstance(refused.value, CacheUnavailableError)


def test_a_server_that_is_not_there_is_said_so_without_the_password():
    home = open_cache_home(f"redis://:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(CacheUnavailableError) as refused:
        home.get("a")
    assert refused.value.home.startswith("redis://127.0.0.1:")
    assert "secret" not in str(refused.value)
    with pytest.raises(CacheUnavailableError):
        home.put("a", 1, 60)

    async def through_the_loop():
        with pytest.raises(CacheUnavailableError):
            await home.aget("a")
        with pytest.raises(CacheUnavailableError):
            await home.aput("a", 1, 60)

    asyncio.run(through_the_loop())


def test_a_server_that_hangs_is_waited_for_once(server):
    home = open_cache_home(server.url, timeout=0.05)
    home.put("a", 1, 60)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        for ask in (lambda: home.get("a"), lambda: asyncio.run(home.aget("a"))):
            began = time.monotonic()
            with pytest.raises(CacheUnavailableError):
                ask()
            assert time.monotonic() - began < 2  # the client's own defaults take 60 s
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    home.close()


@pytest.mark.parametrize("url", ["", "sqlite:///a.db", "http://a"])
def test_another_url_is_refused(url):
    with pytest.raises(ValueError, match="no cache home"):
        open_cache_home(url)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match="timeout"):
        open_cache_home("redis://127.0.0.1:1/0", timeout=timeout)


def test_a_home_without_room_is_refused():
    with pytest.raises(ValueError, match="max_entries"):
        open_cache_home("memory:", max_entries=0)
