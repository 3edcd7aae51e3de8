"""The prediction cache: right for every request, computed once, and never why a request fails."""

import asyncio
import itertools
import os
import signal
import threading

import pytest

from companion.instruments import FakeClock
from companion.instruments.redis_server import find_redis_server, redis_server
from companion.resilience import CircuitBreaker, State
from companion.resilience.cache import (
    CacheCounts,
    CacheHomeError,
    CacheUnavailableError,
    MemoryHome,
    PredictionCache,
    UnkeyableFeaturesError,
    open_cache_home,
)

ROW = {"amount": 12.5, "hour": 3.0}


class Calls:
    """A computation that counts, for threads and for event loops."""

    def __init__(self, value=0.5, error=None):
        self.value, self.error, self.made = value, error, 0

    def __call__(self):
        self.made += 1
        if self.error:
            raise self.error
        return self.value

    async def later(self):
        await asyncio.sleep(0)
        return self()


class FailingHome(MemoryHome):
    """A remote home that fails with whatever error it is told to."""

    name = "nowhere"
    remote = True

    def __init__(self, error=None):
        super().__init__()
        self.error, self.asked = error, []

    def _fail(self, what):
        self.asked.append(what)
        if isinstance(self.error, dict):
            if what in self.error:
                raise self.error[what]
        elif self.error:
            raise self.error

    def get(self, key):
        self._fail("get")
        return super().get(key)

    def put(self, key, value, ttl):
        self._fail("put")
        super().put(key, value, ttl)


GONE = CacheUnavailableError("nowhere", "refused")


@pytest.fixture(params=["threads", "tasks"])
def ask(request):
    """Ask a cache as a thread does, or as a task does."""
    if request.param == "threads":
        return lambda cache, row, calls: cache.get_or_compute(row, calls)
    return lambda cache, row, calls: asyncio.run(cache.aget_or_compute(row, calls.later))


def cached(home=None, **settings):
    home = MemoryHome() if home is None else home
    return PredictionCache(home, **{"version": "v1", "ttl": 60, **settings})


def test_the_second_request_computes_nothing(ask):
    cache, calls = cached(), Calls()
    assert [ask(cache, ROW, calls) for _ in range(3)] == [0.5] * 3
    assert calls.made == 1
    assert cache.counts() == CacheCounts(hits=2, misses=1, shared=0, bypassed=0, errors=0)


def test_one_customers_transactions_do_not_share_a_score(ask):
    cache = cached()
    small, large = {"customer": 7, "amount": 5.0}, {"customer": 7, "amount": 9_999.0}
    assert ask(cache, small, Calls(0.02)) == 0.02
    assert ask(cache, large, Calls(0.97)) == 0.97


@pytest.mark.parametrize("value", [0.0, False, None, ""])
def test_a_falsy_prediction_is_kept(ask, value):
    cache, calls = cached(), Calls(value)
    assert ask(cache, ROW, calls) == ask(cache, ROW, calls) == value
    assert calls.made == 1


def test_an_error_is_the_callers_and_is_not_kept(ask):
    cache, calls = cached(), Calls(error=KeyError("amount"))
    for _ in range(2):
        with pytest.raises(KeyError):
            ask(cache, ROW, calls)
    assert calls.made == 2
    assert ask(cache, ROW, Calls(0.25)) == 0.25


def test_features_without_a_key_are_the_callers_fault(ask):
    calls = Calls()
    with pytest.raises(UnkeyableFeaturesError):
        ask(cached(), {"amount": float("nan")}, calls)
    assert calls.made == 0


def test_another_version_computes_anew_and_the_counts_are_common(ask):
    cache = cached()
    following = cache.for_version("v2")
    assert ask(cache, ROW, Calls(0.1)) == 0.1
    assert ask(following, ROW, Calls(0.2)) == 0.2
    assert ask(cache, ROW, Calls(0.3)) == 0.1
    assert (cache.version, following.version) == ("v1", "v2")
    assert following.counts().misses == 2


def test_a_prediction_is_kept_for_its_ttl_less_the_jitter(ask):
    for luck, life in ((0.0, 100), (0.5, 90)):
        clock = FakeClock()
        cache = cached(MemoryHome(clock=clock), ttl=100, jitter=0.2, rng=lambda luck=luck: luck)
        calls = Calls()
        ask(cache, ROW, calls)
        clock.advance(life - 0.01)
        ask(cache, ROW, calls)
        assert calls.made == 1
        clock.advance(0.02)
        ask(cache, ROW, calls)
        assert calls.made == 2


def test_fifty_threads_compute_once():
    cache, together, computed = cached(), threading.Barrier(50), []

    def ask():
        together.wait(10)
        return cache.get_or_compute(ROW, lambda: computed.append(1) or 0.5)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = cache.counts()
    assert len(computed) == 1
    assert (counts.misses, counts.hits + counts.shared) == (1, 49)


def test_fifty_tasks_compute_once():
    cache, calls = cached(), Calls()

    async def all_at_once():
        return await asyncio.gather(
            *(cache.aget_or_compute(ROW, calls.later) for _ in range(50)),
        )

    assert asyncio.run(all_at_once()) == [0.5] * 50
    assert calls.made == 1
    assert cache.counts() == CacheCounts(hits=0, misses=1, shared=49, bypassed=0, errors=0)
    assert cache.counts().hit_rate == 0.98


def test_an_unused_cache_has_a_hit_rate_of_zero():
    assert cached().counts().hit_rate == 0.0


def test_a_home_that_is_down_is_not_the_callers_problem(ask):
    home, calls = FailingHome(GONE), Calls()
    cache = cached(home)
    assert ask(cache, ROW, calls) == 0.5
    assert home.asked == ["get"]  # no attempt to store where reading has just failed
    assert cache.counts() == CacheCounts(hits=0, misses=1, shared=0, bypassed=0, errors=1)


def test_after_three_failures_requests_no_longer_ask(ask):
    home, calls, clock = FailingHome(GONE), Calls(), FakeClock()
    cache = cached(home, clock=clock)
    for _ in range(10):
        assert ask(cache, ROW, calls) == 0.5
    assert len(home.asked) == 3
    assert cache.counts() == CacheCounts(hits=0, misses=3, shared=0, bypassed=7, errors=3)


def test_a_home_that_is_back_is_found_by_one_probe(ask):
    home, calls, clock = FailingHome(GONE), Calls(), FakeClock()
    cache = cached(home, clock=clock)
    for _ in range(4):
        ask(cache, ROW, calls)
    home.error = None
    clock.advance(1.01)
    ask(cache, ROW, calls)
    ask(cache, ROW, calls)
    assert cache.breaker.state is State.CLOSED
    assert cache.counts().hits == 1


def test_a_home_that_stays_away_is_asked_less_and_less():
    home, calls, clock = FailingHome(GONE), Calls(), FakeClock()
    cache = cached(home, clock=clock)
    asked_at = []
    for _ in range(800):
        before = len(home.asked)
        cache.get_or_compute(ROW, calls)
        asked_at += [clock()] * (len(home.asked) - before)
        clock.advance(0.1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at[2:])]
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16, 30]


def test_storing_that_fails_loses_nothing_but_the_entry(ask):
    home, calls = FailingHome({"put": GONE}), Calls()
    cache = cached(home)
    assert ask(cache, ROW, calls) == 0.5
    assert cache.counts() == CacheCounts(hits=0, misses=1, shared=0, bypassed=0, errors=1)


def test_an_unreadable_entry_is_computed_and_written_anew(ask):
    home, calls = FailingHome({"get": CacheHomeError("nowhere", "not JSON")}), Calls()
    cache = cached(home)
    for _ in range(5):
        ask(cache, ROW, calls)
    assert home.asked == ["get", "put"] * 5
    assert cache.breaker.state is State.CLOSED


def test_a_breaker_that_opens_meanwhile_keeps_the_entry_from_being_stored(ask):
    home = FailingHome()
    breaker = CircuitBreaker()
    cache = cached(home, breaker=breaker)

    class OpensMeanwhile(Calls):
        def __call__(self):
            breaker.force_open()
            return super().__call__()

    assert ask(cache, ROW, OpensMeanwhile()) == 0.5
    assert home.asked == ["get"]
    assert cache.counts().errors == 0


def test_a_programming_error_in_a_home_is_not_hidden(ask):
    with pytest.raises(ZeroDivisionError):
        ask(cached(FailingHome(ZeroDivisionError())), ROW, Calls())


def test_a_home_in_memory_needs_no_breaker():
    assert cached().breaker is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"version": ""}, "version"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": float("inf")}, "ttl"),
        ({"jitter": 1}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, named):
    with pytest.raises(ValueError, match=named):
        cached(**settings)


def test_the_present_version_is_the_cache_itself():
    cache = cached()
    assert cache.for_version("v1") is cache


def test_a_twin_needs_a_version_too():
    with pytest.raises(ValueError, match="version"):
        cached().for_version("")


@pytest.mark.skipif(find_redis_server() is None, reason="there is no Redis server on this machine")
def test_on_a_real_redis_that_hangs_and_comes_back():
    with redis_server() as server:
        home, clock, calls = open_cache_home(server.url), FakeClock(), Calls()
        cache = cached(home, clock=clock)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            assert [cache.get_or_compute(ROW, calls) for _ in range(50)] == [0.5] * 50
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        counts = cache.counts()
        assert (counts.errors, counts.bypassed) == (3, 47)
        clock.advance(2)
        cache.get_or_compute(ROW, calls)
        assert cache.get_or_compute(ROW, lambda: "computed again") == 0.5
        home.close()
