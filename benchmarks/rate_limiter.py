"""What one decision costs, beside the package *limits*, in this process and on a Redis server.

Ratios: to the strategy of `limits` that does the same; token bucket and GCRA, which it has not, to
its fastest. Ours tell what is left and when to return with every decision; theirs answer yes or no,
and a second question costs as much again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import partial

from limits import parse
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)
from limits.strategies import (
    RateLimiter as Strategy,
)

from benchmarks._silence import silenced
from companion.instruments import free_port
from companion.instruments.benchmark import Row, side_by_side
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

TITLE = "Rate limiter"

_OURS = {
    "fixed window": FixedWindow,
    "sliding counter": SlidingCounter,
    "sliding log": SlidingLog,
    "token bucket": TokenBucket,
    "GCRA": GCRA,
}
_THEIRS: dict[str, Callable[[Storage], Strategy]] = {
    "fixed window": FixedWindowRateLimiter,
    "sliding counter": SlidingWindowCounterRateLimiter,
    "sliding log": MovingWindowRateLimiter,
}
# So many that no round runs out, since a refusal costs something else. Logs keep an entry for each
# hit, so theirs are smaller; they are soon full, and what is measured is refusing.
_PLENTY = 1_000_000_000
_LOG = 1_000
_ABSOLUTE = {"fixed window": "at most 2.7 µs", "sliding counter": "at most 4.9 µs"}


def run() -> list[Row]:
    rows = _in_memory()
    if find_redis_server() is not None:
        with redis_server() as server:
            rows += _on_redis(server.url)
            rows += _in_event_loop(server.url)
    return rows + _while_redis_is_down()


def _in_memory() -> list[Row]:
    ours = {name: _asked(RateLimiter(make(_limit(name)))) for name, make in _OURS.items()}
    theirs = _limits_package(MemoryStorage())
    return _rows("one decision in memory", ours, theirs, number=5_000, absolute=_ABSOLUTE)


def _on_redis(url: str) -> list[Row]:
    store = RedisStore(url, timeout=5.0)
    ours = {name: _asked(RateLimiter(make(_limit(name)), store)) for name, make in _OURS.items()}
    rows = _rows("one decision on Redis", ours, _limits_package(storage_from_string(url)), 300)
    assert not store.down
    store.close()
    return rows


def _in_event_loop(url: str) -> list[Row]:
    """Five hundred tasks that ask at one moment, beside the same hits one after another."""
    tasks = 500
    with asyncio.Runner() as runner:
        limiter = RateLimiter(GCRA(_limit("GCRA")), AsyncRedisStore(url, timeout=5.0))

        async def together() -> None:
            await asyncio.gather(*(limiter.ahit("k") for _ in range(tasks)))

        async def in_turn() -> None:
            for _ in range(tasks):
                await limiter.ahit("k")

        seconds = side_by_side(
            {
                "one after another": lambda: runner.run(in_turn()),
                "all at once": lambda: runner.run(together()),
            },
            rounds=5,
        )
    base = seconds["one after another"]
    return [
        Row(
            f"{tasks} decisions on Redis, event loop",
            name,
            took / tasks * 1e6,
            "µs each",
            took / base,
        )
        for name, took in seconds.items()
    ]


def _while_redis_is_down() -> list[Row]:
    """Nothing listens there; the first hit finds out, the others need not."""
    url = f"redis://127.0.0.1:{free_port()}/0"

    def first() -> None:
        RateLimiter(GCRA(_limit("GCRA")), RedisStore(url)).hit("k")

    later = _asked(RateLimiter(GCRA(_limit("GCRA")), RedisStore(url, rest=3600.0)))
    with silenced("companion.resilience.limiting"):  # each first hit says that the server is down
        seconds = side_by_side({"the first hit": first, "the next": later}, rounds=11, number=20)
    return [
        Row("one decision while Redis is down", name, took * 1e6, "µs", None, "within milliseconds")
        for name, took in seconds.items()
    ]


def _limit(name: str) -> Limit:
    return Limit.per_minute(_LOG if name == "sliding log" else _PLENTY)


def _asked(limiter: RateLimiter) -> Callable[[], object]:
    return partial(limiter.hit, "k")


def _limits_package(storage: Storage) -> dict[str, Callable[[], object]]:
    asked: dict[str, Callable[[], object]] = {}
    for name, strategy in _THEIRS.items():
        item = parse(f"{_LOG if name == 'sliding log' else _PLENTY}/minute")
        # Its strategies keep different things under one key: each gets a name of its own.
        asked[name] = partial(strategy(storage).hit, item, name)
    return asked


def _rows(
    what: str,
    ours: Mapping[str, Callable[[], object]],
    theirs: Mapping[str, Callable[[], object]],
    number: int,
    absolute: Mapping[str, str] | None = None,
) -> list[Row]:
    contenders: dict[str, Callable[[], object]] = {}
    for name, ask in ours.items():
        contenders[f"ours, {name}"] = ask
        if name in theirs:
            contenders[f"limits, {name}"] = theirs[name]
    seconds = side_by_side(contenders, rounds=9, number=number)
    fastest = min(seconds[f"limits, {name}"] for name in theirs)
    rows = []
    for contender, took in seconds.items():
        whose, _, name = contender.partition(", ")
        base = seconds.get(f"limits, {name}", fastest)
        target = ""
        if whose == "ours":
            target = ", ".join(filter(None, ("below 1 × limits", (absolute or {}).get(name, ""))))
        rows.append(Row(what, contender, took * 1e6, "µs", took / base, target))
    assert all(math.isfinite(row.value) for row in rows)
    return rows
