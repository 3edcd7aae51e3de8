"""A forest over HTTP, one row a request: each request alone, and micro-batched by three rules.

The forest has 100 trees and no ONNX. One uvicorn worker serves all routes, which read their rows
with msgspec, as the service's hot path does. *Unbatched* predicts in the thread pool, as FastAPI
does in a `def` route. Of the batchers *adaptive* is the default, *classical* holds every row back
for 5 ms unless its batch is full, and *no delay* never holds any back. *Constant* is the same route
without a model: what all the rest costs. Ratios are to unbatched, of requests a second at 64
connections and of latency at one.
"""

import sys
from pathlib import Path

import httpx
import numpy as np

from benchmarks._forest_server import RULES
from benchmarks._http_load import Target, interleaved
from companion.instruments import Row, SubprocessServer, free_port

TITLE = "Micro-batching"
LIBRARIES = ("scikit-learn", "starlette", "uvicorn")

_MANY = 64
_SECONDS = 3.0
_ROUNDS = 3
_BODIES = 200


def run() -> list[Row]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent)]
    command += ["_forest_server:app", f"--port={port}", "--log-level=error", "--no-access-log"]
    with SubprocessServer(command, f"{url}/mean-batch", timeout=120):
        return [*_many(url), *_alone(url)]


def _targets(url: str) -> dict[str, Target]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_BODIES, 12)).round(4).tolist()
    bodies = [str(row).encode() for row in rows]
    routes = ["unbatched", *RULES, "constant"]
    return {route: Target(f"{url}/{route.replace(' ', '-')}", bodies) for route in routes}


def _many(url: str) -> list[Row]:
    loads = interleaved(_targets(url), connections=_MANY, seconds=_SECONDS, rounds=_ROUNDS)
    base = loads["unbatched"].requests_per_s
    rates = [
        Row(
            f"{_MANY} connections",
            name,
            load.requests_per_s,
            "requests/s",
            load.requests_per_s / base,
            "at least 10 × unbatched" if name == "adaptive" else "",
        )
        for name, load in loads.items()
    ]
    slowest = [
        Row(f"{_MANY} connections, p99", name, load.p99_ms, "ms") for name, load in loads.items()
    ]
    counts = httpx.get(f"{url}/mean-batch", trust_env=False).json()
    sizes = [
        Row(f"{_MANY} connections, mean batch", name, rows / batches, "rows")
        for name, (rows, batches) in counts.items()
    ]
    return [*rates, *slowest, *sizes]


def _alone(url: str) -> list[Row]:
    loads = interleaved(_targets(url), connections=1, seconds=_SECONDS, rounds=_ROUNDS)
    base = loads["unbatched"].p50_ms
    return [
        Row(
            "1 connection, p50",
            name,
            load.p50_ms,
            "ms",
            load.p50_ms / base,
            "at most 2 × unbatched" if name == "adaptive" else "",
        )
        for name, load in loads.items()
    ]
