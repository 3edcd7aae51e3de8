"""A cache for predictions: right for every request, and never the reason that one fails.

What people cache first is the customer's last score, under the customer's number, and then a
transaction over 9,999 gets the score of one over 5. A score belongs to its inputs and to the model
that made it, so those are the key (:mod:`companion.resilience.cache.keys`). The rest is about bad
days:

* *Many at once.* Requests for one key that come together compute once
  (:mod:`companion.resilience.cache.flights`), in each process; and lifetimes differ by a random
  share, so that entries made together do not end together.
* *The home is down.* Its answers have short timeouts, a failed look-up is not followed by an
  attempt to store, and after a few failures a circuit breaker keeps requests from asking at all. A
  request then costs what computing costs.
* *The model changes.* Another version is another key. Swap the model together with
  :meth:`PredictionCache.for_version`, and no score can land under the wrong name.

Whether a cache pays is a question to measure: a look-up on Redis takes longer than a small ONNX
model. And a backend sized for the hits goes down with the cache, so size it for none.
"""

from __future__ import annotations

import copy
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from companion.resilience.breaker import CircuitBreaker
from companion.resilience.cache.flights import TaskFlights, ThreadFlights
from companion.resilience.cache.homes import (
    MISSING,
    CacheHome,
    CacheHomeError,
    CacheUnavailableError,
)
from companion.resilience.cache.keys import Features, canonical_key
from companion.resilience.outcomes import CircuitOpenError
from companion.resilience.window import CallWindow

T = TypeVar("T")

_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class CacheCounts:
    """What happened so far. Each request is one of the first four.

    ``hits`` found their value, ``misses`` computed it, ``shared`` waited for one that was being
    computed, ``bypassed`` computed without asking because the breaker was open. ``errors`` counts
    the calls to the home that failed, for reading and for storing.
    """

    hits: int
    misses: int
    shared: int
    bypassed: int
    errors: int

    @property
    def hit_rate(self) -> float:
        """Share of requests that computed nothing, 0 to 1; 0 where there were none."""
        spared = self.hits + self.shared
        requests = spared + self.misses + self.bypassed
        return spared / requests if requests else 0.0


class PredictionCache:
    """Keeps predictions in ``home``; one cache serves threads and event loops together.

    Args:
        home: where values live; see :func:`~companion.resilience.cache.open_cache_home`.
        version: the model's version, part of every key.
        ttl: seconds that a value may live at most.
        jitter: share of ``ttl``, 0 to below 1, by which lives are shortened at random.
        rng: uniform on [0, 1), for the jitter.
        breaker: guards a remote home; ``None`` for one that opens after three failures among the
            last ten calls and tries again after 1, 2, 4, … up to 30 seconds.
        clock: monotonic seconds, for that breaker.

    Raises:
        ValueError: a setting that makes no sense; the message names it.
    """

    def __init__(
        self,
        home: CacheHome,
        *,
        version: str,
        ttl: float,
        jitter: float = 0.1,
        rng: Callable[[], float] = random.random,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not version:
            raise ValueError("version is not empty: a prediction belongs to its model")
        if not 0 < ttl < math.inf:
            raise ValueError(f"ttl is a positive, finite number of seconds; got {ttl!r}")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter is a share from 0 to below 1; got {jitter!r}")
        self.version = version
        self._home = home
        self._ttl = ttl
        self._jitter = jitter
        self._rng = rng
        self._breaker = (breaker or _breaker(home.name, clock)) if home.remote else None
        self._threads = ThreadFlights()
        self._tasks = TaskFlights()
        self._tally = _Tally()

    def for_version(self, version: str) -> PredictionCache:
        """The same cache (home, breaker, counts) for another version of the model.

        Cheap enough for every request: the present version is this very object.
        """
        if version == self.version:
            return self
        if not version:
            raise ValueError("version is not empty: a prediction belongs to its model")
        twin = copy.copy(self)
        twin.version = version
        return twin

    def get_or_compute(self, features: Features, compute: Callable[[], T]) -> T:
        """The cached prediction for ``features``, or ``compute()``, which is then kept.

        Raises:
            UnkeyableFeaturesError: a feature is NaN, or nothing that a key can be made of.
            TypeError: a Redis home cannot store what ``compute`` returned; it takes JSON values.
            Exception: whatever ``compute`` raised; nothing is kept then.
        """
        key = canonical_key(self.version, features)
        value, shared = self._threads.share(key, lambda: self._look_or_compute(key, compute))
        if shared:
            self._tally.add("shared")
        return value

    async def aget_or_compute(self, features: Features, compute: Callable[[], Awaitable[T]]) -> T:
        """As :meth:`get_or_compute`, with ``await compute()`` and without holding up the loop."""
        key = canonical_key(self.version, features)
        value, shared = await self._tasks.share(key, lambda: self._alook_or_compute(key, compute))
        if shared:
            self._tally.add("shared")
        return value

    @property
    def breaker(self) -> CircuitBreaker | None:
        """What guards the home, for health checks and metrics; ``None`` if nothing needs to."""
        return self._breaker

    def counts(self) -> CacheCounts:
        """What happened so far, all versions together."""
        return self._tally.counts()

    # ----- one request that leads ------------------------------------------------------------

    def _look_or_compute(self, key: str, compute: Callable[[], T]) -> T:
        get, put = self._home.get, self._home.put
        worth_storing = True
        try:
            found = self._breaker.call(get, key) if self._breaker else get(key)
            if found is not MISSING:
                self._tally.add("hits")
                return cast(T, found)
            self._tally.add("misses")
        except (CircuitOpenError, CacheHomeError) as error:
            worth_storing = self._missed_because(error)
        value = compute()
        if worth_storing:
            try:
                if self._breaker:
                    self._breaker.call(put, key, value, self._life())
                else:
                    put(key, value, self._life())
            except (CircuitOpenError, CacheHomeError) as error:
                self._not_stored_because(error)
        return value

    async def _alook_or_compute(self, key: str, compute: Callable[[], Awaitable[T]]) -> T:
        get, put = self._home.aget, self._home.aput
        worth_storing = True
        try:
            found = await (self._breaker.acall(get, key) if self._breaker else get(key))
            if found is not MISSING:
                self._tally.add("hits")
                return cast(T, found)
            self._tally.add("misses")
        except (CircuitOpenError, CacheHomeError) as error:
            worth_storing = self._missed_because(error)
        value = await compute()
        if worth_storing:
            try:
                if self._breaker:
                    await self._breaker.acall(put, key, value, self._life())
                else:
                    await put(key, value, self._life())
            except (CircuitOpenError, CacheHomeError) as error:
                self._not_stored_because(error)
        return value

    def _missed_because(self, error: CircuitOpenError | CacheHomeError) -> bool:
        """Count a look-up without an answer; true if the home is still worth a call."""
        if isinstance(error, CircuitOpenError):
            self._tally.add("bypassed")
            return False
        self._tally.add("misses", "errors")
        return not isinstance(error, CacheUnavailableError)

    def _not_stored_because(self, error: CircuitOpenError | CacheHomeError) -> None:
        if isinstance(error, CacheHomeError):
            self._tally.add("errors")

    def _life(self) -> float:
        return self._ttl * (1 - self._jitter * self._rng())


class _Tally:
    """Counters that lose nothing between threads; ``+=`` on its own does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"hits": 0, "misses": 0, "shared": 0, "bypassed": 0, "errors": 0}

    def add(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._counts[name] += 1

    def counts(self) -> CacheCounts:
        with self._lock:
            return CacheCounts(**self._counts)


def _breaker(name: str, clock: Callable[[], float]) -> CircuitBreaker:
    return CircuitBreaker(
        failure_rate=0.3,
        min_calls=3,
        window=CallWindow(10),
        open_for=lambda openings: min(_LONGEST_PAUSE, 2.0 ** (min(openings, 10) - 1)),
        half_open_timeout=_LONGEST_PAUSE,
        counts=(CacheUnavailableError,),
        clock=clock,
        name=f"cache at {name}",
    )
