"""Limits on a real Redis server: the scripts decide as the algorithms do, for everybody at once."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import struct
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from companion.instruments.redis_server import find_redis_server, redis_server
from companion.resilience.limiting import (
    GCRA,
    AsyncRedisStore,
    Decision,
    FixedWindow,
    InvalidCostError,
    Limit,
    RateLimiter,
    RedisStore,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from companion.resilience.limiting.redis_script import source_of

pytestmark = pytest.mark.skipif(
    find_redis_server() is None, reason="there is no Redis server on this machine"
)

ALGORITHMS = [FixedWindow, SlidingLog, SlidingCounter, TokenBucket, GCRA]
every_algorithm = pytest.mark.parametrize("make", ALGORITHMS, ids=lambda a: a.__name__)

AGES = Limit(rate=1e-6, burst=100)
"""A hundred, and a window that does not end while a test runs."""
PATIENT = 5.0  # seconds; a busy machine may need more than a service would wait


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
def client(server):
    with Redis.from_url(server.url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def store(server, client):
    made = RedisStore(server.url, timeout=PATIENT)
    yield made
    assert not made.down, "no decision was made behind the server's back"
    made.close()


# ----- scripts and algorithms ----------------------------------------------------------------

EPOCH = 1767225600  # 2026-01-01
SLOW = st.builds(
    Limit, rate=st.sampled_from([1 / 256, 1 / 64, 1 / 32]), burst=st.sampled_from([1, 1.5, 4, 7.25])
)
STEPS = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 2, 5, 8, 16, 17, 40, -3]), st.integers(0, 8)),
    min_size=1,
    max_size=25,
)


def decide_both_ways(server, algorithm, limit, steps):
    """One trace through script and algorithm, the server's clock exchanged for the trace's own."""
    source = source_of(algorithm.name).replace("redis.call('TIME')", "{ARGV[6], ARGV[7]}")
    # Keys would go away by the server's own time, which is not the one that the trace has.
    source = source.replace("math.ceil(reset * 1000)", "99999").replace("window * 1000", "99999")
    state, now = algorithm.fresh(), Fraction(4096)
    with Redis.from_url(server.url) as client:
        client.flushall()
        script = client.register_script(source)
        for sixteenths, eighths in steps:
            now += Fraction(limit.burst) / Fraction(limit.rate) * sixteenths / 16
            cost = limit.burst * eighths / 8
            seconds, micros = divmod(round(now * 10**6), 10**6)
            numbers = (cost, limit.rate, limit.burst, limit.window, algorithm.most)
            answer = script(keys=["k"], args=[*numbers, seconds + EPOCH, micros])
            got = Decision(answer[0] == 1, limit.burst, *struct.unpack("<ddd", answer[1:]))
            yield got, algorithm.decide(state, float(now), cost)


@every_algorithm
@settings(deadline=None, max_examples=30)
@given(limit=SLOW, steps=STEPS)
def test_the_script_decides_as_the_algorithm_does(server, make, limit, steps):
    if make is SlidingLog:  # a log forgets for good, and the two do not forget at the same look
        steps = [(abs(sixteenths), eighths) for sixteenths, eighths in steps]
    for got, expected in decide_both_ways(server, make(limit), limit, steps):
        assert dataclasses.astuple(got) == pytest.approx(dataclasses.astuple(expected), abs=1e-3)


def test_what_lies_ahead_in_a_log_when_the_clock_is_set_back_counts_as_of_then(server):
    limit = Limit(rate=1 / 64, burst=4)
    steps = [(0, 2), (1, 2), (1, 2), (-3, 2), (0, 8), (15, 2), (1, 8)]
    decisions = list(decide_both_ways(server, SlidingLog(limit), limit, steps))
    for got, expected in decisions:
        assert dataclasses.astuple(got) == pytest.approx(dataclasses.astuple(expected), abs=1e-3)
    assert [got.allowed for got, _ in decisions] == [True] * 4 + [False, False, True]


@every_algorithm
def test_it_counts_down_refuses_and_says_when_to_return(store, make):
    limiter = RateLimiter(make(AGES), store)
    assert limiter.hit("k", 98.5).remaining == pytest.approx(1.5, abs=1e-3)
    assert limiter.hit("k").allowed
    refused = limiter.hit("k")
    assert not refused.allowed
    assert refused.remaining == pytest.approx(0.5, abs=1e-3)
    assert 0 < refused.retry_after <= refused.reset


@every_algorithm
def test_it_keeps_the_promises_about_costs(store, make):
    limiter = RateLimiter(make(AGES), store)
    assert limiter.hit("k", 0).remaining == 100
    assert limiter.hit("k", 101).never
    with pytest.raises(InvalidCostError):
        limiter.hit("k", -1)
    limiter.hit("k", 60)
    for _ in range(20):
        assert not limiter.hit("k", 50).allowed
    assert limiter.hit("k", 40).allowed


@every_algorithm
def test_looking_and_being_refused_write_nothing(store, client, make):
    limiter = RateLimiter(make(AGES), store)
    limiter.hit("k", 0)
    assert client.dbsize() == 0
    limiter.hit("k", 100)
    before = [client.dump(key) for key in client.scan_iter()]
    limiter.hit("k")
    limiter.hit("k", 0)
    assert [client.dump(key) for key in client.scan_iter()] == before


@every_algorithm
def test_who_waits_as_long_as_it_was_told_is_allowed(store, make):
    limiter = RateLimiter(make(Limit(rate=20, burst=1)), store)
    while (decision := limiter.hit("k")).allowed:
        pass
    threading.Event().wait(decision.retry_after + 0.001)
    assert limiter.hit("k").allowed


@every_algorithm
def test_idle_keys_go_away_by_themselves(store, client, make):
    limiter = RateLimiter(make(Limit.per_minute(100)), store)
    reset = limiter.hit("k").reset
    (key,) = client.keys()
    assert 0 < client.pttl(key) <= reset * 1000 + 1


@pytest.mark.parametrize("make", [FixedWindow, SlidingCounter, TokenBucket, GCRA])
def test_a_key_takes_the_same_memory_after_five_hundred_hits(store, client, make):
    limiter = RateLimiter(make(Limit(rate=1, burst=1e6)), store)
    limiter.hit("k")
    (key,) = client.keys()
    before = client.memory_usage(key)
    for _ in range(500):
        limiter.hit("k")
    assert client.memory_usage(key) == before < 200


def test_a_log_takes_memory_for_every_hit(store, client):
    limiter = RateLimiter(SlidingLog(Limit(rate=1, burst=1000)), store)
    for _ in range(300):
        limiter.hit("k")
    (key,) = client.keys()
    assert client.memory_usage(key) > 300 * 20


def test_another_limit_is_another_key(store):
    RateLimiter(GCRA(AGES), store).hit("k", 50)
    wider = RateLimiter(GCRA(Limit(rate=1e-6, burst=200)), store)
    assert wider.hit("k", 0).remaining == 200
    assert RateLimiter(GCRA(AGES), store).hit("k", 0).remaining == pytest.approx(50, abs=1e-3)


def test_prefixes_keep_services_apart(server, client):
    one, other = (
        RateLimiter(GCRA(AGES), RedisStore(server.url, prefix=prefix, timeout=PATIENT))
        for prefix in "ab"
    )
    one.hit("k", 50)
    assert other.hit("k", 0).remaining == 100
    assert sorted(key[:2] for key in client.scan_iter()) == [b"a:"]


@pytest.mark.parametrize("key", ["", "ü", "a b\r\n$5", "\ud800", "x" * 10_000])
def test_any_text_is_a_key(store, key):
    limiter = RateLimiter(GCRA(AGES), store)
    limiter.hit(key, 40)
    assert limiter.hit(key, 0).remaining == pytest.approx(60, abs=1e-3)


# ----- everybody at once ---------------------------------------------------------------------


def test_of_eight_processes_exactly_as_many_hits_are_allowed_as_the_limit_has(server, client):
    fork = multiprocessing.get_context("fork")
    together, results = fork.Barrier(8), fork.SimpleQueue()

    def caller():
        store = RedisStore(server.url, timeout=PATIENT)
        limiters = [RateLimiter(make(AGES), store) for make in ALGORITHMS]
        together.wait()
        results.put([sum(each.hit("k").allowed for _ in range(60)) for each in limiters])
        assert not store.down

    processes = [fork.Process(target=caller) for _ in range(8)]
    for process in processes:
        process.start()
    allowed = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert [sum(counts) for counts in zip(*allowed, strict=True)] == [100] * 5


def test_of_fifty_threads_exactly_as_many_hits_are_allowed(store):
    limiter = RateLimiter(GCRA(AGES), store)
    allowed, together = [], threading.Barrier(50)

    def caller():
        together.wait()
        allowed.extend(limiter.hit("k").allowed for _ in range(10))

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 500
    assert sum(allowed) == 100


def test_a_fork_does_not_talk_on_its_parents_connection(store):
    limiter = RateLimiter(GCRA(AGES), store)
    limiter.hit("k")
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: [limiter.hit("k") for _ in range(40)])
    child.start()
    for _ in range(40):
        limiter.hit("k")
    child.join()
    assert child.exitcode == 0
    assert limiter.hit("k", 0).remaining == pytest.approx(19, abs=1e-3)


# ----- event loops ---------------------------------------------------------------------------


@every_algorithm
def test_of_five_hundred_tasks_exactly_as_many_hits_are_allowed(server, client, make):
    async def scenario():
        store = AsyncRedisStore(server.url, timeout=PATIENT)
        limiter = RateLimiter(make(AGES), store)
        decisions = await asyncio.gather(*(limiter.ahit("k") for _ in range(500)))
        assert not store.down
        await store.aclose()
        return sum(decision.allowed for decision in decisions)

    assert asyncio.run(scenario()) == 100


def test_async_and_sync_share_their_counts(server, store):
    async def scenario():
        limiter = RateLimiter(GCRA(AGES), AsyncRedisStore(server.url, timeout=PATIENT))
        assert (await limiter.ahit("k", 200)).never
        with pytest.raises(InvalidCostError):
            await limiter.ahit("k", -1)
        return await limiter.ahit("k", 30)

    assert asyncio.run(scenario()).allowed
    assert RateLimiter(GCRA(AGES), store).hit("k", 0).remaining == pytest.approx(70, abs=1e-3)


def test_a_caller_who_is_cancelled_harms_nobody(server, client):
    async def scenario():
        limiter = RateLimiter(GCRA(AGES), AsyncRedisStore(server.url, timeout=PATIENT))
        tasks = [asyncio.create_task(limiter.ahit(f"k{n}", n)) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])
        remaining = [one.remaining for one in done[1::2]]
        assert remaining == pytest.approx([100 - n for n in range(1, 20, 2)], abs=1e-3)
        return await limiter.ahit("k19", 1)

    assert asyncio.run(scenario()).remaining == pytest.approx(80, abs=1e-3)


def test_one_store_serves_one_loop_after_another(server, client):
    store = AsyncRedisStore(server.url, timeout=PATIENT)
    limiter = RateLimiter(GCRA(AGES), store)
    for expected in (99, 98, 97):
        decision = asyncio.run(limiter.ahit("k"))
        assert decision.remaining == pytest.approx(expected, abs=1e-3)
    assert not store.down


def test_a_store_of_the_wrong_kind_is_refused_by_name(server, store):
    with pytest.raises(TypeError, match="await ahit"):
        RateLimiter(GCRA(AGES), AsyncRedisStore(server.url)).hit("k")
    with pytest.raises(TypeError, match="AsyncRedisStore"):
        asyncio.run(RateLimiter(GCRA(AGES), store).ahit("k"))
