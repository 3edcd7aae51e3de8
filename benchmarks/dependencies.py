"""What a client of the scoring API sees while something behind it is down, slow or wrong.

Redis (limits, cache, features) and PostgreSQL (jobs) are real servers behind a link that is broken
on purpose; the model is replaced by one that raises, takes its time, or answers NaN. Each situation
starts from a fresh application that was well a moment ago; then twenty transactions that the cache
has not seen are scored one after another, or twenty times a job is asked for.

The column `contender` says what came back, `value` the slowest of the twenty; `ratio` compares it
with the slowest while all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np

from benchmarks._silence import silenced
from companion.features.store import FeatureStore, open_home
from companion.instruments import Row
from companion.instruments.faulty_link import DOWN, GARBLED, HUNG, WELL, Fault, FaultyLink, slow
from companion.instruments.postgresql_server import postgresql_server
from companion.instruments.redis_server import redis_server
from companion.resilience.cache import PredictionCache, open_cache_home
from companion.resilience.limiting import Limit
from companion.resilience.limiting.redis_async_store import AsyncRedisStore
from companion.serving.api import Service, create_app
from companion.serving.jobs import open_jobs
from companion.serving.preparing import HISTORY, MODEL, History, prepare
from companion.serving.scorer import Scorer, StateFeatures, hold_artefact, hold_model
from companion.serving.scorer.stored import StoredFeatures, publish

TITLE = "Dependencies that fail: what the client sees"

CALLS = 20
SLOW = slow(0.3)
FAULTS: dict[str, Fault] = {
    "well": WELL,
    "down": DOWN,
    "hung": HUNG,
    "slow by 0.3 s": SLOW,
    "garbled": GARBLED,
}


@dataclass(frozen=True)
class World:
    """What all situations share: a prepared model, its customers' past, and two servers."""

    model: Path
    history: History
    redis: FaultyLink
    postgresql: FaultyLink
    folder: Path

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    @property
    def postgresql_url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.postgresql.port}/postgres"


class Broken:
    """A model that answers as `answer` says, once it has been warmed up."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        self.is_broken = False

    def predict_proba(self, rows: Any) -> Any:
        if self.is_broken:
            return self._answer(rows)
        return np.tile([0.9, 0.1], (len(rows), 1))


def run() -> list[Row]:
    # The service logs each of these troubles, rightly.
    with silenced("companion"), _world() as world:
        return [
            *_of_link("limits in Redis", world, world.redis, _with_limits, _score),
            *_of_link("cache in Redis", world, world.redis, _with_cache, _score),
            *_of_link("features in Redis", world, world.redis, _with_features, _score),
            *_of_link("jobs in PostgreSQL", world, world.postgresql, _with_jobs, _ask_for_a_job),
            *_of_models(world),
        ]


@contextlib.contextmanager
def _world() -> Iterator[World]:
    import pandas as pd

    with (
        tempfile.TemporaryDirectory() as name,
        redis_server() as redis,
        postgresql_server() as postgresql,
        FaultyLink(urlsplit(redis.url).port or 0) as to_redis,
        FaultyLink(_socket_of(postgresql.url)) as to_postgresql,
    ):
        place = prepare(Path(name, "prepared"))
        history = History.of(pd.read_parquet(place / HISTORY))
        yield World(place / MODEL, history, to_redis, to_postgresql, Path(name))


def _socket_of(url: str) -> str:
    [folder] = parse_qs(urlsplit(url).query)["host"]
    return f"{folder}/.s.PGSQL.5432"


def _scorer(world: World, **parts: Any) -> Scorer:
    return Scorer(hold_artefact(world.model), StateFeatures(world.history.state), **parts)


def _with_limits(world: World) -> Service:
    store = AsyncRedisStore(world.redis_url)
    return Service(_scorer(world), limit=Limit(1000.0, 1000.0), limit_store=store)


def _with_cache(world: World) -> Service:
    cache = PredictionCache(open_cache_home(world.redis_url), version="any", ttl=60.0)
    return Service(_scorer(world, cache=cache))


def _with_features(world: World) -> Service:
    store = FeatureStore(world.folder / "features", home=open_home(world.redis_url))
    moment = world.history.latest["time"]
    assert isinstance(moment, datetime)
    publish(store, world.history.state, moment)
    return Service(Scorer(hold_artefact(world.model), StoredFeatures(store)))


def _with_jobs(world: World) -> Service:
    return Service(
        _scorer(world),
        jobs=open_jobs(world.postgresql_url, uploads=world.folder / "uploads", timeout=2.0),
    )


def _of_link(
    what: str, world: World, link: FaultyLink, make: Callable[[World], Service], ask: Ask
) -> Iterator[Row]:
    well = 0.0
    for name, fault in FAULTS.items():
        link.become(WELL)
        seen = asyncio.run(_watch(make(world), world, ask, partial(link.become, fault)))
        well = well or seen.slowest
        yield _row(f"{what}: {name}", seen, well)
    link.become(WELL)


def _of_models(world: World) -> Iterator[Row]:
    def fails(rows: Any) -> Any:
        raise RuntimeError("out of memory")

    def takes_its_time(rows: Any) -> Any:
        time.sleep(SLOW.seconds)
        return np.tile([0.9, 0.1], (len(rows), 1))

    broken = {
        "raises": fails,
        "answers NaN": lambda rows: np.full((len(rows), 2), np.nan),
        f"slow by {SLOW.seconds} s": takes_its_time,
    }
    healthy = Service(_scorer(world))
    well = asyncio.run(_watch(healthy, world, _score, lambda: None))
    yield _row("model: well", well, well.slowest)
    for name, answer in broken.items():
        model = Broken(answer)
        service = Service(
            Scorer(hold_model(model, version="broken"), StateFeatures(world.history.state))
        )
        seen = asyncio.run(_watch(service, world, _score, partial(_break, model)))
        yield _row(f"model: {name}", seen, well.slowest)
    missing = Service(
        Scorer(hold_artefact(world.folder / "nowhere"), StateFeatures(world.history.state))
    )
    seen = asyncio.run(_watch(missing, world, _score, lambda: None))
    yield _row("model: missing", seen, well.slowest)


def _break(model: Broken) -> None:
    model.is_broken = True


@dataclass(frozen=True)
class Seen:
    """What came back from `CALLS` calls, by kind, and the slowest of them in seconds."""

    answers: Counter[str]
    slowest: float


Ask = Callable[[httpx.AsyncClient, dict[str, Any]], Any]


async def _watch(service: Service, world: World, ask: Ask, break_it: Callable[[], None]) -> Seen:
    transactions = _transactions(world)
    answers: Counter[str] = Counter()
    slowest = 0.0
    async with _client(service) as client:
        for _ in range(5):
            await ask(client, next(transactions))
        await asyncio.to_thread(break_it)
        for _ in range(CALLS):
            transaction = next(transactions)
            begun = time.perf_counter()
            answers[await ask(client, transaction)] += 1
            slowest = max(slowest, time.perf_counter() - begun)
    return Seen(answers, slowest)


@contextlib.asynccontextmanager
async def _client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60.0) as client,
    ):
        yield client


def _transactions(world: World) -> Iterator[dict[str, Any]]:
    """Transactions that differ, so that no cache knows them."""
    latest = world.history.latest
    for number in range(10_000):
        moment = latest["time"] + timedelta(seconds=number)  # type: ignore[operator]
        yield {
            **latest,
            "transaction_id": 10_000_000 + number,
            "time": moment.isoformat(),
            "amount": 20.0 + number,
        }


async def _score(client: httpx.AsyncClient, transaction: dict[str, Any]) -> str:
    reply = await client.post("/v2/predict", json=transaction)
    if reply.status_code != 200:
        return str(reply.status_code)
    told = reply.json()
    return f"200 by {told['source']}" + (", degraded" if told["degraded"] else "")


async def _ask_for_a_job(client: httpx.AsyncClient, transaction: dict[str, Any]) -> str:
    reply = await client.get("/v2/batches/" + "0" * 32)
    wait = " with Retry-After" if "retry-after" in reply.headers else ""
    return f"{reply.status_code}{wait}"


def _row(what: str, seen: Seen, well: float) -> Row:
    told = "; ".join(f"{count} × {kind}" for kind, count in seen.answers.most_common())
    return Row(what, told, seen.slowest * 1e3, "ms", ratio=seen.slowest / well)
