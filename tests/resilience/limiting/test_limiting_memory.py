"""Limits in this process: what they cost in memory, and that threads cannot cheat them."""

from __future__ import annotations

import asyncio
import sys
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from companion.instruments import FakeClock
from companion.resilience.limiting import (
    GCRA,
    FixedWindow,
    Limit,
    MemoryStore,
    RateLimiter,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

ALGORITHMS = [FixedWindow, SlidingLog, SlidingCounter, TokenBucket, GCRA]
every_algorithm = pytest.mark.parametrize("make", ALGORITHMS, ids=lambda a: a.__name__)


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@every_algorithm
def test_of_fifty_threads_exactly_as_many_hits_are_allowed_as_the_limit_has(make, busy_switching):
    limiter = RateLimiter(make(Limit.per_hour(100)), MemoryStore(FakeClock(1.0)))
    allowed, together = [], threading.Barrier(50)

    def caller():
        together.wait()
        allowed.extend(limiter.hit("k").allowed for _ in range(20))

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 1000
    assert sum(allowed) == 100


@every_algorithm
def test_idle_keys_go_away(make):
    clock = FakeClock()
    store = MemoryStore(clock)
    limiter = RateLimiter(make(Limit.per_minute(100)), store)
    for number in range(10_000):
        limiter.hit(f"client {number}")
    assert len(store) == 10_000
    clock.advance(121)
    for _ in range(10_000 // 32 + 1):
        limiter.hit("somebody else")
    assert len(store) == 1


@every_algorithm
def test_keys_in_use_stay(make):
    clock = FakeClock()
    store = MemoryStore(clock)
    limiter = RateLimiter(make(Limit.per_minute(10)), store)
    limiter.hit("busy", 10)
    for _ in range(500):
        clock.advance(1)
        limiter.hit("busy")
        limiter.hit("other")
    assert len(store) == 2
    assert limiter.hit("busy", 0).remaining < 5


@every_algorithm
def test_whoever_uses_nothing_is_not_remembered(make):
    store = MemoryStore(FakeClock())
    limiter = RateLimiter(make(Limit(1, 5)), store)
    limiter.hit("looks", 0)
    limiter.hit("asks too much", 6)
    assert len(store) == 0


@every_algorithm
def test_no_hit_pays_for_a_crowd_that_has_left(make):
    clock = FakeClock()
    store = MemoryStore(clock)
    limiter = RateLimiter(make(Limit(1, 5)), store)
    for number in range(1000):
        limiter.hit(f"client {number}")
    clock.advance(100)
    limiter.hit("one hit")
    assert len(store) >= 1000 - 32


def bytes_after(limiter, hits):
    tracemalloc.start()
    try:
        for _ in range(hits):
            assert limiter.hit("k").allowed
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [FixedWindow, SlidingCounter, TokenBucket, GCRA])
def test_a_key_costs_the_same_after_ten_hits_and_after_five_thousand(make):
    few, many = (
        bytes_after(RateLimiter(make(Limit.per_hour(10_000)), MemoryStore(FakeClock())), hits)
        for hits in (10, 5000)
    )
    assert many < few + 2000


def test_a_log_grows_with_every_hit_and_says_so():
    limiter = RateLimiter(SlidingLog(Limit.per_hour(10_000)), MemoryStore(FakeClock()))
    assert bytes_after(limiter, 5000) > 5000 * 50
    assert "not constant" in SlidingLog.__doc__


def test_a_log_forgets_what_has_left_the_window():
    clock = FakeClock()
    limiter = RateLimiter(SlidingLog(Limit.per_minute(1000)), MemoryStore(clock))
    for _ in range(1000):
        limiter.hit("k")
    clock.advance(60)
    before = bytes_after(limiter, 1)
    assert before < 5000


def test_limiters_with_equal_limits_share_a_store_and_others_do_not_meet():
    store = MemoryStore(FakeClock())
    first, second = (RateLimiter(GCRA(Limit(1, 5)), store) for _ in range(2))
    first.hit("k", 3)
    assert second.hit("k", 0).remaining == 2
    assert RateLimiter(GCRA(Limit(1, 6)), store).hit("k", 0).remaining == 6
    assert RateLimiter(TokenBucket(Limit(1, 5)), store).hit("k", 0).remaining == 5


def test_an_event_loop_may_ask_it_too():
    limiter = RateLimiter(GCRA(Limit(1, 5)), MemoryStore(FakeClock()))
    assert asyncio.run(limiter.ahit("k", 2)).remaining == 3
