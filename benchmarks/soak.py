"""Five minutes of steady load while everything around the service fails in turn.

The service runs as its users run it (`companion serve`), with limits and cache in a real Redis,
jobs in a real PostgreSQL and one `companion worker`. Requests come by a timetable at 60 % of what
this very generator gets out of it, so a stalled service does not slow its load. Meanwhile Redis is
killed and comes back, PostgreSQL too, the model is reloaded, slow clients hold connections, and the
worker is killed with a job in hand.

Every answer is compared with the one that the same model gives here from the same history. What may
differ is only what says so: `source: fallback`, or `degraded`. A refusal counts as clean when it is
503 or 429. Memory is the resident set of the server; after a warm-up of a third, the last third is
compared with the second.

`COMPANION_SOAK_SECONDS` shortens it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil

from companion.instruments import (
    HttpCaller,
    HttpStatusError,
    Row,
    SubprocessServer,
    aclosed_loop,
    aopen_loop,
    free_port,
    poisson_arrivals,
    stream,
)
from companion.instruments.postgresql_server import PostgresqlServer, postgresql_server
from companion.instruments.redis_server import RedisServer, redis_server
from companion.serving.keys import KeyRing, generate_key
from companion.serving.preparing import HISTORY, MODEL, History, prepare
from companion.serving.schemas import decode_transaction
from companion.serving.scorer import StateFeatures, hold_artefact
from companion.transactions import simulate

TITLE = "Soak: failures under steady load"

SECONDS = float(os.environ.get("COMPANION_SOAK_SECONDS", "300"))
LOAD = 0.6
DIFFERENT = 300
JOB_ROWS = 20_000
JOBS = 8
SLOW_CLIENTS = 20
CLEAN = (429, 503)


@dataclass
class Tally:
    """What came back."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    address: str
    key: str
    server: SubprocessServer
    worker: SubprocessServer
    redis: RedisServer
    postgresql: PostgresqlServer
    bodies: list[bytes]
    expected: list[float]


def run() -> list[Row]:
    with ExitStack() as stack:
        world = _started(stack)
        return asyncio.run(_soak(world))


def _started(stack: ExitStack) -> World:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    redis = stack.enter_context(redis_server())
    postgresql = stack.enter_context(postgresql_server())
    place = prepare(folder / "prepared")
    history = History.of(pd.read_parquet(place / HISTORY))
    bodies = _bodies(history)
    key, record = generate_key("soak", rate=1e6)
    KeyRing([record]).save(folder / "keys.json")
    port = free_port()
    companion = str(Path(sys.executable).with_name("companion"))
    environment = {"COMPANION_LIMITS_URL": redis.url, "COMPANION_CACHE_URL": redis.url}
    server = SubprocessServer(
        [
            *(companion, "serve", "--port", str(port), "--model", str(place / MODEL)),
            *("--history", str(place / HISTORY), "--keys", str(folder / "keys.json")),
            *("--jobs", postgresql.url, "--uploads", str(folder / "uploads")),
        ],
        f"http://127.0.0.1:{port}/health/ready",
        env=environment,
    )
    worker = SubprocessServer(
        [
            *(companion, "worker", "--jobs", postgresql.url, "--model", str(place / MODEL)),
            *("--uploads", str(folder / "uploads"), "--lease", "5", "--chunk-rows", "2000"),
        ],
        lambda: True,
    )
    for process in (server, worker):
        stack.enter_context(process)
    return World(
        f"http://127.0.0.1:{port}",
        key,
        server,
        worker,
        redis,
        postgresql,
        bodies,
        _expected(place / MODEL, history, bodies),
    )


def _bodies(history: History) -> list[bytes]:
    """Transactions just after the history's end, each different."""
    bodies = []
    for number in range(DIFFERENT):
        moment = history.latest["time"] + timedelta(seconds=number)  # type: ignore[operator]
        transaction = {
            **history.latest,
            "transaction_id": 10_000_000 + number,
            "time": moment.isoformat(),
            "amount": 5.0 + 7.0 * number,
        }
        bodies.append(json.dumps(transaction).encode())
    return bodies


def _expected(model: Path, history: History, bodies: list[bytes]) -> list[float]:
    """What the model says of each body, asked here and not over HTTP."""
    holder = hold_artefact(model)
    holder.load()
    source = StateFeatures(history.state)
    rows = [source.read(decode_transaction(body)).row for body in bodies]
    return [holder.current().fraud(row) for row in rows]


async def _soak(world: World) -> list[Row]:
    tally = Tally()
    headers = {"X-API-Key": world.key}
    url = f"{world.address}/v2/predict"
    async with HttpCaller(url, bodies=world.bodies, headers=headers, timeout=10.0) as caller:
        await aclosed_loop(caller, calls=500, workers=8)  # what is slow once
        most = (await aclosed_loop(caller, calls=3_000, workers=16)).throughput
        rate = LOAD * most

        async def call(number: int) -> None:
            tally.answers[await _judged(caller, world, number % DIFFERENT, tally)] += 1

        arrivals = poisson_arrivals(rate, SECONDS, stream(7, "soak"))
        memory = asyncio.create_task(_watch_memory(world.server, tally))
        troubles = asyncio.create_task(_troubles(world))
        sending = asyncio.create_task(_send_jobs(world, tally))
        load = await aopen_loop(call, arrivals)
        await asyncio.gather(troubles, sending)
        memory.cancel()
    scored, twice = await _finish_jobs(world, tally)
    return _rows(tally, rate, load.percentile(99), scored, twice)


async def _judged(caller: HttpCaller, world: World, number: int, tally: Tally) -> str:
    """What call `number` came back as; counts it where it is wrong."""
    try:
        answer = json.loads(await caller(number))
    except HttpStatusError as error:
        return "refused cleanly" if error.status in CLEAN else f"status {error.status}"
    except (OSError, EOFError, TimeoutError) as error:
        return f"unanswered: {type(error).__name__}"
    if answer["source"] == "fallback" or answer["degraded"]:
        return "answered, and said to be less"
    if abs(answer["fraud_probability"] - world.expected[number]) > 1e-6:
        tally.wrong += 1
        return "wrong"
    return "answered"


async def _watch_memory(server: SubprocessServer, tally: Tally) -> None:
    assert server.pid is not None
    process = psutil.Process(server.pid)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        tally.memory.append((loop.time() - begun, process.memory_info().rss))
        await asyncio.sleep(SECONDS / 150)


async def _troubles(world: World) -> None:
    """One after another, each with time to recover from."""
    steps: list[Callable[[], Awaitable[None]]] = [
        lambda: _kill_and_restart(world.redis.process),
        lambda: _kill_and_restart(world.postgresql.process),
        lambda: _reload(world.server),
        lambda: _slow_clients(world),
        lambda: _kill_and_restart(world.worker),
    ]
    for step in steps:
        await asyncio.sleep(SECONDS / (len(steps) + 2))
        await step()


async def _kill_and_restart(process: SubprocessServer) -> None:
    await asyncio.to_thread(process.kill)
    await asyncio.sleep(SECONDS / 60)
    await asyncio.to_thread(process.start)


async def _reload(server: SubprocessServer) -> None:
    assert server.pid is not None
    for _ in range(3):
        os.kill(server.pid, signal.SIGHUP)
        await asyncio.sleep(SECONDS / 100)


async def _slow_clients(world: World) -> None:
    """Connections that send a header a byte at a time and never end it."""
    host, _, port = world.address.removeprefix("http://").partition(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(SLOW_CLIENTS)]
    for letter in b"POST /v2/predict HTTP/1.1\r\nhost: x\r\n":
        for _, writer in connections:
            with suppress(ConnectionError):
                writer.write(bytes([letter]))
                await writer.drain()
        await asyncio.sleep(SECONDS / 1500)
    for _, writer in connections:
        writer.close()


async def _send_jobs(world: World, tally: Tally) -> None:
    """Submit a file now and then; a submission that is refused is tried again, by its key."""
    sink = BytesIO()
    simulate(JOB_ROWS, seed=3).to_parquet(sink, index=False)
    headers = {"X-API-Key": world.key, "Content-Type": "application/vnd.apache.parquet"}
    async with httpx.AsyncClient(base_url=world.address, timeout=30.0) as client:
        for number in range(JOBS):
            while True:
                with suppress(httpx.HTTPError):
                    reply = await client.post(
                        "/v2/batches",
                        content=sink.getvalue(),
                        headers={**headers, "Idempotency-Key": f"soak-{number}"},
                    )
                    if reply.status_code == 202:
                        tally.jobs.append(reply.json()["id"])
                        break
                await asyncio.sleep(1.0)
            await asyncio.sleep(SECONDS / (JOBS + 2))


async def _finish_jobs(world: World, tally: Tally) -> tuple[list[int], int]:
    """Rows with a result of each accepted job, once all are over, and how many came twice."""
    scored, twice = [], 0
    headers = {"X-API-Key": world.key}
    async with httpx.AsyncClient(base_url=world.address, timeout=60.0, headers=headers) as client:
        for job_id in tally.jobs:
            async with asyncio.timeout(120.0):
                while (await client.get(f"/v2/batches/{job_id}")).json()["state"] != "done":
                    await asyncio.sleep(0.5)
            reply = await client.get(f"/v2/batches/{job_id}/results")
            rows = pd.read_csv(BytesIO(reply.content))["row"]
            scored.append(rows.nunique())
            twice += len(rows) - rows.nunique()
    return scored, twice


def _rows(tally: Tally, rate: float, p99: float, scored: list[int], twice: int) -> list[Row]:
    def resident(begin: float, end: float) -> float:
        part = [rss for at, rss in tally.memory if begin * SECONDS <= at < end * SECONDS]
        return statistics.median(part)

    before, after = resident(1 / 3, 2 / 3), resident(2 / 3, 1)
    total = sum(tally.answers.values())
    what = f"{SECONDS:.0f} s at {rate:.0f} requests/s"
    others = [
        (name, count)
        for name, count in sorted(tally.answers.items())
        if name not in ("answered", "wrong")
    ]
    lost = JOB_ROWS * JOBS - int(np.sum(scored))
    return [
        Row(what, "requests", total, ""),
        Row(what, "wrong answers", tally.wrong, "", target="0"),
        *(Row(what, name, count, "", ratio=count / total) for name, count in others),
        Row(what, "p99", p99 * 1e3, "ms"),
        Row(what, "memory, last third to second", after / 2**20, "MiB", after / before, "<= 1.05"),
        Row(what, "accepted jobs", len(tally.jobs), "", target=f"{JOBS}"),
        Row(what, "rows of jobs lost", lost, "", target="0"),
        Row(what, "rows of jobs twice", twice, "", target="0"),
    ]
