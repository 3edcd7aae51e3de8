"""Q25 · Rate limiting: the exercise, its checks, and the mistakes they catch."""

import inspect
import math
import sys
import threading
import time
import weakref
from collections import defaultdict, deque

from companion.instruments.clocks import FakeClock
from companion.resilience.limiting import Decision
from companion.study import Exercise, Stage

exercise = Exercise(
    "TokenBuckets",
    hints={
        "start": (
            "Begin with one client and no refill: `burst` tokens, each hit takes one, and none are "
            "taken when too few are left.",
            "Then remember when you last looked. What has flowed in since is the time that passed "
            "times `rate`, and the bucket holds no more than `burst`.",
            "Last, one bucket per key: a dictionary from key to (tokens, time). A key that is not "
            "in it has a full bucket.",
        ),
        "settings": (
            "Keep the stub's __init__ line; every hit answers with a Decision.",
            "Decision(allowed, limit, remaining, retry_after, reset): `limit` is the burst, and "
            "`reset` the seconds until the bucket is full again.",
        ),
        "take": (
            "A full bucket gives `burst` hits at once, and then no more.",
            "Compare `cost` with the tokens that are there; take them only if there are enough.",
        ),
        "per-key": (
            "Two clients, one bucket: whose tokens were those?",
            "Keep the state in a dictionary by key, and treat a missing key as a full bucket.",
        ),
        "clock": (
            "Which clock do you read, and what happens to it when the machine's time is corrected?",
            "Read the time only as self.clock(); its default, time.monotonic, never goes back.",
        ),
        "cap": (
            "A client that stays away for a day: how many tokens are in its bucket?",
            "min(self.burst, tokens + passed * self.rate).",
        ),
        "refill": (
            "Tokens flow in all the time. When does your limiter give something back?",
            "A list of past requests, or a counter that starts anew each minute, gives back in one "
            "piece. A bucket that is emptied holds rate × t tokens after t seconds.",
            "Store (tokens, time). At each hit: tokens += (now - time) × rate, at most burst.",
        ),
        "fractions": (
            "Half a token is worth something: it is half the way to the next hit.",
            "No int(), no //, no round() on tokens. And a look between two hits must not throw "
            "away what has flowed in.",
        ),
        "retry-after": (
            "How long until this very hit would be allowed?",
            "What is missing is cost - tokens; it flows in at `rate` a second.",
        ),
        "refused-free": (
            "Somebody who keeps knocking is refused. Who pays for the knocking?",
            "Take tokens out only when the hit is allowed, and let time flow in either way.",
        ),
        "costs": (
            "Costs are numbers, and some of them are odd: 0, -1, more than the bucket ever holds.",
            "0 is allowed and takes nothing; below 0, raise ValueError (it would fill the bucket); "
            "above burst, refuse with retry_after=math.inf.",
        ),
        "lock": (
            "Between looking into the bucket and taking out, another thread does the same.",
            "One lock around all of it: reading the clock, looking, taking.",
        ),
        "forget": (
            "A million clients came once. Who still remembers them?",
            "A bucket that is full again says nothing that a missing key does not say.",
            "At each hit look at one or a few of the oldest keys (a deque of keys in the order in "
            "which they came) and delete those whose bucket is full.",
        ),
    },
)


def bucket(attempt, case, *, rate=None, burst=None):
    """A limiter, its clock, its rate and burst; powers of two, so that sums are exact."""
    rate = rate or 2.0 ** int(case.rng.integers(-2, 4))
    burst = burst or int(case.rng.integers(4, 12))
    clock = FakeClock(float(case.rng.integers(1000)))
    return attempt(rate, burst, clock=clock), clock, rate, burst


def about(got, expected):
    return isinstance(got, int | float) and abs(got - expected) < 1e-6


@exercise.check(Stage.TYPE, hint="settings")
def it_answers_with_a_decision(attempt, case):
    """hit() answers with a Decision of five fields"""
    limiter = attempt(2, 5, clock=FakeClock())
    got = limiter.hit("k")
    case.equal(given="TokenBuckets(2, 5), one hit", expected="Decision", got=type(got).__name__)
    fields = (got.allowed, got.limit)
    case.equal(given="its allowed and limit", expected=(True, 5), got=fields)


@exercise.check(Stage.SHAPE, hint="take")
def a_burst_and_no_more(attempt, case):
    """a full bucket gives burst hits at once, and no more"""
    limiter, _, _, burst = bucket(attempt, case)
    got = sum(limiter.hit("k").allowed for _ in range(burst + 5))
    case.equal(given=f"{burst + 5} hits at one moment, burst={burst}", expected=burst, got=got)


@exercise.check(Stage.SHAPE, hint="per-key")
def keys_have_their_own(attempt, case):
    """each key has a bucket of its own"""
    limiter, _, _, burst = bucket(attempt, case)
    for _ in range(burst):
        limiter.hit("a")
    got = limiter.hit("b")
    given = f"{burst} hits by a, burst={burst}; then one by b"
    case.equal(given=given, expected=(True, burst - 1), got=(got.allowed, got.remaining))


@exercise.check(Stage.SHAPE, hint="clock")
def only_its_own_clock_counts(attempt, case):
    """it reads the time from the clock that it was given; by default a monotonic one"""
    reads = []

    def clock():
        reads.append(1)
        return 7.0

    attempt(1, 5, clock=clock).hit("k")
    case.true(reads, given="clock=…, one hit", expected="the clock is read", got="never")
    default = inspect.signature(attempt).parameters["clock"].default
    case.equal(given="the default clock", expected=time.monotonic, got=default)


@exercise.check(Stage.RANGE, hint="cap")
def never_above_the_burst(attempt, case):
    """a bucket never holds more than burst, however long nobody comes"""
    limiter, clock, _, burst = bucket(attempt, case)
    limiter.hit("k")
    clock.advance(1e6)
    got = limiter.hit("k", 0).remaining
    case.equal(given=f"eleven days of quiet, burst={burst}", expected=burst, got=got)


@exercise.check(Stage.VALUE, hint="refill")
def tokens_flow_in_all_the_time(attempt, case):
    """t seconds after it was emptied a bucket holds rate × t tokens"""
    limiter, clock, rate, burst = bucket(attempt, case)
    for _ in range(burst):
        limiter.hit("k")
    for tokens in range(1, burst):
        clock.advance(1 / rate)
        got = limiter.hit("k", 0).remaining
        case.true(
            about(got, tokens),
            given=f"emptied {tokens / rate:g} s ago, rate={rate:g}, burst={burst}",
            expected=f"{tokens} tokens",
            got=got,
        )


@exercise.check(Stage.VALUE, hint="fractions")
def fractions_are_kept(attempt, case):
    """fractions of a token are kept, however often somebody looks"""
    limiter, clock, rate, burst = bucket(attempt, case)
    limiter.hit("k", burst)
    steps = int(case.rng.integers(5, 15))
    for _ in range(steps):
        clock.advance(0.25 / rate)
        limiter.hit("k", 0)
    got = limiter.hit("k", 0).remaining
    expected = min(burst, steps * 0.25)
    case.true(
        about(got, expected),
        given=f"{steps} times a quarter of a token's time, with a look after each",
        expected=f"{expected:g} tokens",
        got=got,
    )
    got = limiter.hit("k", 0.5).remaining
    case.true(
        about(got, expected - 0.5),
        given=f"half a token taken from {expected:g}",
        expected=f"{expected - 0.5:g}",
        got=got,
    )


@exercise.check(Stage.VALUE, hint="retry-after")
def it_says_when_to_return(attempt, case):
    """retry_after is the time until the same hit is allowed, reset until the bucket is full"""
    limiter, clock, rate, burst = bucket(attempt, case)
    limiter.hit("k", burst - 0.5)
    cost = int(case.rng.integers(2, burst))
    refused = limiter.hit("k", cost)
    given = f"half a token left, a hit of {cost}, rate={rate:g}"
    wait, full = (cost - 0.5) / rate, (burst - 0.5) / rate
    case.true(
        about(refused.retry_after, wait),
        given=f"{given}: retry_after",
        expected=f"{wait:g} s",
        got=refused.retry_after,
    )
    case.true(
        about(refused.reset, full),
        given=f"{given}: reset",
        expected=f"{full:g} s",
        got=refused.reset,
    )
    clock.advance(refused.retry_after)
    allowed = limiter.hit("k", cost)
    case.equal(
        given=f"the same hit {wait:g} s later: allowed, retry_after",
        expected=(True, 0),
        got=(allowed.allowed, allowed.retry_after),
    )


@exercise.check(Stage.VALUE, hint="refused-free")
def refused_hits_cost_nothing(attempt, case):
    """a refused hit costs nothing: who keeps knocking gets in as soon as who waits"""
    limiter, clock, rate, burst = bucket(attempt, case)
    for _ in range(burst):
        limiter.hit("k")
    for _ in range(8):
        clock.advance(0.125 / rate)
        last = limiter.hit("k")
    case.equal(
        given="an empty bucket, eight knocks while one token flows in; the eighth",
        expected=True,
        got=last.allowed,
    )


@exercise.check(Stage.VALUE, hint="costs")
def odd_costs_are_dealt_with(attempt, case):
    """cost 0 takes nothing, a negative cost is refused by name, more than burst for ever"""
    limiter, _, _, burst = bucket(attempt, case)
    limiter.hit("k", burst)
    got = limiter.hit("k", 0)
    case.equal(
        given="an empty bucket, cost 0: allowed, remaining",
        expected=(True, 0),
        got=(got.allowed, got.remaining),
    )
    case.raises(ValueError, lambda: limiter.hit("k", -1), given="cost -1")
    case.equal(given="after cost -1", expected=0, got=limiter.hit("k", 0).remaining)
    got = limiter.hit("new", burst + 1)
    case.equal(
        given=f"cost {burst + 1}, burst={burst}: allowed, retry_after",
        expected=(False, math.inf),
        got=(got.allowed, got.retry_after),
    )


def yielding(name):
    def calculated(self, other):
        time.sleep(0)
        return getattr(float, name)(self, other)

    return calculated


class Units(float):
    """A cost that lets other threads run whenever somebody compares or calculates with it."""

    __lt__, __le__, __gt__, __ge__ = map(yielding, ("__lt__", "__le__", "__gt__", "__ge__"))
    __add__, __radd__, __sub__, __rsub__ = map(
        yielding, ("__add__", "__radd__", "__sub__", "__rsub__")
    )
    __hash__ = float.__hash__


@exercise.check(Stage.STRESS, hint="lock")
def threads_share_it(attempt, case):
    """of many threads' hits exactly burst are allowed"""
    threads, each, burst = 10, 30, 100
    limiter = attempt(0.001, burst, clock=FakeClock(5.0))
    together, allowed = threading.Barrier(threads), []

    def caller():
        together.wait(5)
        allowed.extend(limiter.hit("k", Units(1)).allowed for _ in range(each))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        callers = [threading.Thread(target=caller) for _ in range(threads)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    given = f"{threads} threads, {each} hits each at one moment, burst={burst}"
    case.equal(given=given, expected=burst, got=sum(allowed))


class Key(str):
    """A key that can be watched: a plain str takes no weak references."""

    __slots__ = ("__weakref__",)


@exercise.check(Stage.STRESS, hint="forget")
def idle_clients_are_forgotten(attempt, case):
    """clients whose bucket is full again are forgotten as others come"""
    limiter, clock, rate, burst = bucket(attempt, case)
    clients, watched = 2000, []
    for number in range(clients):
        key = Key(f"client {number}")
        watched.append(weakref.ref(key))
        limiter.hit(key)
    del key
    clock.advance(2 * burst / rate)
    for _ in range(2 * clients):
        clock.advance(burst / rate / clients)
        limiter.hit("somebody else", 0.001)
    alive = sum(reference() is not None for reference in watched)
    case.true(
        alive <= clients // 10,
        given=f"{clients:,} clients hit once and stay away, {2 * clients:,} hits by another",
        expected="nearly all of them forgotten",
        got=f"{alive:,} still remembered",
    )


@exercise.solution
class TokenBuckets:
    def __init__(self, rate, burst, *, clock=time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets = {}  # key → (tokens, at what time)
        self._oldest_first = deque()  # each key once: where to look for what can be forgotten
        self._lock = threading.Lock()

    def hit(self, key, cost=1.0):
        if not cost >= 0:
            raise ValueError(f"a hit costs 0 or more, got {cost}")
        with self._lock:
            now = self.clock()
            self._forget(now)
            tokens = self._tokens(key, now)
            allowed = cost <= tokens
            if allowed and cost:
                tokens -= cost
                if key not in self._buckets:
                    self._oldest_first.append(key)
                self._buckets[key] = tokens, now
        if allowed:
            retry_after = 0.0
        elif cost > self.burst:
            retry_after = math.inf
        else:
            retry_after = (cost - tokens) / self.rate
        return Decision(allowed, self.burst, tokens, retry_after, (self.burst - tokens) / self.rate)

    def _tokens(self, key, now):
        tokens, then = self._buckets.get(key, (self.burst, now))
        return min(self.burst, tokens + (now - then) * self.rate)

    def _forget(self, now):
        for _ in range(min(2, len(self._oldest_first))):
            key = self._oldest_first.popleft()
            if self._tokens(key, now) >= self.burst:
                del self._buckets[key]
            else:
                self._oldest_first.append(key)


@exercise.another_way
class TheoreticalArrival:
    """GCRA: one number a key, when its bucket would be full; two generations of keys."""

    def __init__(self, rate, burst, *, clock=time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self.lock = threading.RLock()
        self.young, self.old, self.turns = {}, {}, clock() + burst / rate

    def hit(self, key, cost=1.0):
        if cost < 0 or math.isnan(cost):
            raise ValueError("a negative cost would fill the bucket")
        with self.lock:
            now = self.clock()
            if now >= self.turns:  # whoever is in neither generation has been idle long enough
                self.young, self.old, self.turns = {}, self.young, now + self.burst / self.rate
            arrival = max(now, self.young.get(key, self.old.get(key, now)))
            wait = arrival + cost / self.rate - (now + self.burst / self.rate)
            if cost > self.burst:
                wait = math.inf
            if wait <= 1e-9 and cost:
                arrival += cost / self.rate
                self.young[key] = arrival
            used = (arrival - now) * self.rate
            return Decision(
                wait <= 1e-9, self.burst, round(self.burst - used, 9), max(wait, 0.0), arrival - now
            )


@exercise.wrong("refill")
class ReceivedPattern:
    """The received answer under its own name: a list of past requests, and no refill."""

    def __init__(self, rate, burst, *, clock=time.monotonic):
        self.window, self.burst, self.clock = burst / rate, burst, clock
        self.requests = defaultdict(list)

    def hit(self, key, cost=1.0):
        now = self.clock()
        kept = [(at, units) for at, units in self.requests[key] if at > now - self.window]
        left = self.burst - sum(units for _, units in kept)
        allowed = cost <= left
        if allowed:
            left -= cost
            kept.append((now, cost))
        self.requests[key] = kept
        return Decision(allowed, self.burst, left, 0.0 if allowed else self.window, self.window)


@exercise.wrong("refill")
class CounterPerWindow:
    """A counter that starts anew with each window: twice the burst passes around its edge."""

    def __init__(self, rate, burst, *, clock=time.monotonic):
        self.window, self.burst, self.clock = burst / rate, burst, clock
        self.used = defaultdict(float)

    def hit(self, key, cost=1.0):
        number = self.clock() // self.window
        left = self.burst - self.used[key, number]
        allowed = cost <= left
        if allowed:
            self.used[key, number] += cost
            left -= cost
        return Decision(allowed, self.burst, left, 0.0 if allowed else self.window, self.window)


@exercise.wrong("settings")
class YesOrNo(TokenBuckets):
    """Answers true or false: the caller cannot say when to come back."""

    def hit(self, key, cost=1.0):
        return super().hit(key, cost).allowed


@exercise.wrong("take")
class OneTooMany(TokenBuckets):
    """Compares with what would be left, and lets it go below zero."""

    def hit(self, key, cost=1.0):
        with self._lock:
            now = self.clock()
            tokens = self._tokens(key, now)
            allowed = tokens > -1
            self._buckets[key] = tokens - cost if allowed else tokens, now
        return Decision(allowed, self.burst, tokens - cost, 0.0, 0.0)


@exercise.wrong("per-key")
class OneBucketForAll(TokenBuckets):
    """Everybody's hits come out of one bucket."""

    def hit(self, key, cost=1.0):
        return super().hit("everybody", cost)


@exercise.wrong("clock")
class WallClock(TokenBuckets):
    """Reads the wall clock, which NTP and people move."""

    def __init__(self, rate, burst, *, clock=time.time):
        super().__init__(rate, burst, clock=time.time)


@exercise.wrong("clock")
class WallClockByDefault(TokenBuckets):
    """Takes a clock, but the service, which gives none, gets one that goes back."""

    def __init__(self, rate, burst, *, clock=time.time):
        super().__init__(rate, burst, clock=clock)


@exercise.wrong("cap")
class SavesUp(TokenBuckets):
    """Tokens without end flow into the bucket of whoever stays away."""

    def _tokens(self, key, now):
        tokens, then = self._buckets.get(key, (self.burst, now))
        return tokens + (now - then) * self.rate

    def _forget(self, now):
        return


@exercise.wrong("fractions")
class WholeTokens(TokenBuckets):
    """Counts whole tokens and throws away the rest each time."""

    def hit(self, key, cost=1.0):
        with self._lock:
            now = self.clock()
            tokens = int(self._tokens(key, now))
            self._buckets[key] = tokens, now
        return super().hit(key, cost)

    def _forget(self, now):
        return


@exercise.wrong("retry-after")
class OneTokensTime(TokenBuckets):
    """Tells everybody to come back after one token's time, whatever the hit costs."""

    def hit(self, key, cost=1.0):
        got = super().hit(key, cost)
        retry_after = 0.0 if got.allowed else 1 / self.rate
        return Decision(got.allowed, got.limit, got.remaining, retry_after, got.reset)


@exercise.wrong("refused-free")
class KnockingStartsAnew(TokenBuckets):
    """A refused hit sets the time back to now, so that what has flowed in is lost."""

    def hit(self, key, cost=1.0):
        got = super().hit(key, cost)
        if not got.allowed and key in self._buckets:
            self._buckets[key] = self._buckets[key][0], self.clock()
        return got


@exercise.wrong("costs")
class BelievesAnyCost(TokenBuckets):
    """Takes a negative cost out, which puts tokens in."""

    def hit(self, key, cost=1.0):
        if cost < 0:
            with self._lock:
                now = self.clock()
                self._buckets[key] = self._tokens(key, now) - cost, now
            return super().hit(key, 0)
        return super().hit(key, cost)


@exercise.wrong("costs")
class PromisesTheImpossible(TokenBuckets):
    """Tells a hit that costs more than the bucket holds to come back later."""

    def hit(self, key, cost=1.0):
        got = super().hit(key, cost)
        wait = (
            (cost - got.remaining) / self.rate if got.retry_after == math.inf else got.retry_after
        )
        return Decision(got.allowed, got.limit, got.remaining, wait, got.reset)


@exercise.wrong("lock")
class NoLock(TokenBuckets):
    """Looks, then takes, and another thread is in between."""

    class Nothing:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    def __init__(self, rate, burst, *, clock=time.monotonic):
        super().__init__(rate, burst, clock=clock)
        self._lock = self.Nothing()


@exercise.wrong("forget")
class RemembersEverybody(TokenBuckets):
    """Keeps a bucket for everybody who ever came."""

    def _forget(self, now):
        return
