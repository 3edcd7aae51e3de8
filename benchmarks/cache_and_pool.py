"""What a cached prediction and a pooled connection save, and what they cost when things go wrong.

Ratios: a request through the cache to computing the same row with ONNX, which is the alternative; a
query on a pooled connection to one that connects first. A client "as it comes" tries eleven times
and waits five seconds each time for a server that hangs; to keep the run short it is given a tenth
of a second there, so the real figure is fifty times as large.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from threadpoolctl import threadpool_limits

from companion.features import feature_matrix
from companion.instruments.benchmark import Row, side_by_side
from companion.instruments.postgresql_server import PostgresqlMissingError, postgresql_server
from companion.instruments.redis_server import RedisMissingError, RedisServer, redis_server
from companion.models.families import make_forest
from companion.models.onnx import OnnxModel, export_onnx
from companion.resilience import CircuitBreaker
from companion.resilience.cache import PredictionCache, canonical_key, open_cache_home
from companion.resilience.pool import engine_for
from companion.transactions import simulate

TITLE = "Prediction cache and connection pool"

_ROWS = 200
_WHAT = "request, one thread"
_TABLE = "CREATE TABLE customer_features (customer_id bigint PRIMARY KEY, mean float)"
_FILL = "INSERT INTO customer_features SELECT n, n FROM generate_series(1, 1000) n"


def run() -> list[Row]:
    """Microseconds a request, milliseconds a query."""
    return [*_cache(), *_pool()]


def _cache() -> list[Row]:
    model, rows = _model()
    requests = itertools.cycle(rows)

    def compute(row: NDArray[np.float32]) -> float:
        return float(model.predict_proba(row[None, :])[0, 1])

    def through(cache: PredictionCache) -> Callable[[], float]:
        def request() -> float:
            row = next(requests)
            return cache.get_or_compute(row, lambda: compute(row))

        return request

    contenders: dict[str, Callable[[], object]] = {
        "computing with ONNX": lambda: compute(next(requests)),
        "the key alone": lambda: canonical_key("v1", next(requests)),
        "memory, hit": through(_opened("memory:")),
    }
    with threadpool_limits(1):
        try:
            with redis_server() as server:
                cache = _opened(server.url)
                contenders["Redis up, hit"] = through(cache)
                return [*_timed(contenders), *_redis_in_trouble(server, compute, rows[0])]
        except RedisMissingError:
            return [*_timed(contenders), Row("request", "Redis: none here", float("nan"), "")]


def _redis_in_trouble(
    server: RedisServer, compute: Callable[[NDArray[np.float32]], float], row: NDArray[np.float32]
) -> list[Row]:
    """Hung and then down: as the client comes, without the breaker, and as it should be."""
    found = []
    for trouble, stop in (("hung", signal.SIGSTOP), ("down", signal.SIGKILL)):
        process = server.process.pid
        assert process is not None
        os.kill(process, stop)
        as_it_comes = _as_it_comes(server, 0.1 if trouble == "hung" else None)
        unguarded = CircuitBreaker()
        unguarded.disable()
        caches = {
            f"Redis {trouble}, our timeout, no breaker": _opened(server.url, unguarded),
            f"Redis {trouble}, ours": _opened(server.url),
        }
        requests = {
            name: partial(cache.get_or_compute, row, partial(compute, row))
            for name, cache in caches.items()
        }
        first, last = requests.values()
        for _ in range(3):
            last()  # opens the breaker
        slow = side_by_side({"": as_it_comes}, rounds=1)[""], side_by_side({"": first})[""]
        quick = side_by_side(
            {"computing": partial(compute, row), "ours": last}, rounds=15, number=_ROWS
        )
        names = [f"Redis {trouble}, redis.Redis() as it comes", *caches]
        targets = ["", "", "at most 3 × computing"]
        for name, took, target in zip(names, (*slow, quick["ours"]), targets, strict=True):
            found.append(Row(_WHAT, name, took * 1e6, "µs", took / quick["computing"], target))
        if trouble == "hung":
            os.kill(process, signal.SIGCONT)
    return found


def _as_it_comes(server: RedisServer, timeout: float | None) -> Callable[[], None]:
    """One look-up by a client with its default retries; ``None`` leaves it its timeout too."""
    address = urlsplit(server.url)
    patience: dict[str, Any] = {} if timeout is None else {"socket_timeout": timeout}

    def look_up() -> None:
        with (
            contextlib.suppress(RedisError),
            Redis(host=str(address.hostname), port=address.port or 0, **patience) as client,
        ):
            client.get("prediction")

    return look_up


def _timed(contenders: dict[str, Callable[[], object]]) -> list[Row]:
    for request in contenders.values():
        for _ in range(_ROWS):
            request()
    seconds = side_by_side(contenders, rounds=15, number=_ROWS)
    base = seconds["computing with ONNX"]
    target = {"memory, hit": "below 1 × computing"}
    return [
        Row(_WHAT, name, took * 1e6, "µs", took / base, target.get(name, ""))
        for name, took in seconds.items()
    ]


def _opened(url: str, breaker: CircuitBreaker | None = None) -> PredictionCache:
    return PredictionCache(open_cache_home(url), version="v1", ttl=600, breaker=breaker)


def _model() -> tuple[OnnxModel, NDArray[np.float32]]:
    X, y = feature_matrix(simulate(20_000, seed=10))
    rows = X.to_numpy(dtype=np.float32)
    with threadpool_limits(1):
        forest = make_forest(seed=0, trees=100).fit(rows, y)
        return OnnxModel(export_onnx(forest, rows[:2_000])), rows[:_ROWS]


def _pool() -> list[Row]:
    query = text("SELECT mean FROM customer_features WHERE customer_id = :customer")
    what = "one row by its key, PostgreSQL on a local socket"
    try:
        with postgresql_server() as server:
            url = server.url.replace("postgresql:", "postgresql+psycopg:")
            pooled = engine_for(server.url, workers=1, max_connections=100)
            engines = {
                "ours: pooled, pre-ping": pooled,
                "pooled, no pre-ping": create_engine(url),
                "a connection for each query": create_engine(url, poolclass=NullPool),
            }
            with pooled.begin() as connection:
                connection.execute(text(_TABLE))
                connection.execute(text(_FILL))

            def asking(name: str) -> Callable[[], object]:
                def ask() -> object:
                    with engines[name].connect() as connection:
                        return connection.execute(query, {"customer": 7}).scalar_one_or_none()

                return ask

            seconds = side_by_side({name: asking(name) for name in engines}, rounds=11, number=20)
            for engine in engines.values():
                engine.dispose()
    except PostgresqlMissingError:
        return [Row(what, "none here", float("nan"), "")]
    base = seconds["a connection for each query"]
    target = {"ours: pooled, pre-ping": "at most a fifth"}
    return [
        Row(what, name, took * 1e3, "ms", took / base, target.get(name, ""))
        for name, took in seconds.items()
    ]
