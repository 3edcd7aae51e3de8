"""The whole of `POST /v2/predict` over HTTP, beside an empty FastAPI route and beside ASGI alone.

Ours does all that the service does: key, limit, request id, metrics, validation, features of the
customer's past, breaker, ONNX, decision. The empty route returns a constant and does nothing. Each
runs in a uvicorn of its own, one worker, uvloop and httptools, and they are loaded in turn. Ratios
are to the empty route, of requests a second and of the 99th percentile of latency.

*CPU* is what the server's process used per request, by its own account: on a machine that is busy
with other things it says more than requests a second do.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil

from benchmarks._http_load import HttpLoad, Target, measure_target, tool
from companion.instruments import Row, SubprocessServer, free_port
from companion.serving.keys import KeyRing, generate_key
from companion.serving.preparing import HISTORY, MODEL, prepare

TITLE = "The scoring API"
LIBRARIES = ("fastapi", "uvicorn", "onnxruntime", "msgspec")

_CONNECTIONS = (16, 64)
_SECONDS = 3.0
_ROUNDS = 3
_BODIES = 200
_OURS, _EMPTY, _ASGI = "/v2/predict", "empty FastAPI route", "ASGI alone"


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as servers:
        rows = []
        for connections in _CONNECTIONS:
            rows += _loaded(servers, connections)
        return rows


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, tuple[Target, SubprocessServer]]]:
    prepared = prepare(folder / "prepared")
    key, record = generate_key("the benchmark")
    KeyRing([record]).save(folder / "keys.json")
    ours = {
        "COMPANION_MODEL": str(prepared / MODEL),
        "COMPANION_HISTORY": str(prepared / HISTORY),
        "COMPANION_KEYS": str(folder / "keys.json"),
        "COMPANION_RATE": "1000000",
    }
    guarded = ["--http=companion.serving.wire:GuardedProtocol", "--no-server-header", "--factory"]
    here = ["--app-dir", str(Path(__file__).parent)]
    with contextlib.ExitStack() as stack:

        def start(path: str, *arguments: str, env: dict[str, str] | None = None) -> Any:
            port = free_port()
            url = f"http://127.0.0.1:{port}{path}"
            command = [sys.executable, "-m", "uvicorn", f"--port={port}", "--loop=uvloop"]
            command += ["--log-level=error", "--no-access-log", *arguments]
            ready = f"http://127.0.0.1:{port}/health/ready" if env else url
            server = SubprocessServer(command, ready, env=env, timeout=120)
            return url, stack.enter_context(server)

        factory = "companion.serving.api:app_from_environment"
        url, server = start("/v2/predict", *guarded, factory, env=ours)
        bodies = _bodies(prepared / HISTORY)
        found = {_OURS: (Target(url, bodies, {"X-API-Key": key}), server)}
        _wait_until_all_is_loaded(url, bodies[0], key)
        for name, path, app in ((_EMPTY, "/constant", "fastapi"), (_ASGI, "/", "asgi")):
            url, server = start(path, "--http=httptools", *here, f"_scoring_servers:{app}")
            found[name] = (Target(url), server)
        yield found


def _wait_until_all_is_loaded(url: str, body: bytes, key: str) -> None:
    """The libraries for explanations are loaded beside the first requests; not beside these."""
    explain = url.replace("/v2/predict", "/v2/explain")
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    httpx.post(explain, content=body, headers=headers, timeout=60).raise_for_status()


def _bodies(history: Path) -> list[bytes]:
    """Transactions of known customers in the minutes after their history ends."""
    table = pd.read_parquet(history)
    last = table["time"].iloc[-1]
    columns = ["customer_id", "merchant_id", "category", "amount", "distance_km", "device_id"]
    rows = table.iloc[-_BODIES:][[*columns, "is_online"]].to_dict("records")
    return [
        json.dumps(
            {
                **row,
                "transaction_id": 10**9 + number,
                "time": (last + pd.Timedelta(seconds=number + 1)).isoformat(),
            }
        ).encode()
        for number, row in enumerate(rows)
    ]


def _loaded(servers: dict[str, tuple[Target, SubprocessServer]], connections: int) -> list[Row]:
    loads: dict[str, list[HttpLoad]] = {name: [] for name in servers}
    spent: dict[str, list[float]] = {name: [] for name in servers}
    for turn in range(_ROUNDS + 1):
        for name, (target, server) in servers.items():
            before = _cpu_seconds(server)
            load = measure_target(target, connections=connections, seconds=_SECONDS)
            used = _cpu_seconds(server) - before
            if load.errors:
                raise RuntimeError(f"{name} answered with errors: {load.errors}")
            if turn:  # the first is a warm-up
                loads[name].append(load)
                spent[name].append(used / (load.requests_per_s * _SECONDS))
    return _rows(loads, spent, f"{connections} connections ({tool()})")


def _rows(loads: dict[str, list[HttpLoad]], spent: dict[str, list[float]], what: str) -> list[Row]:
    def median(values: list[float]) -> float:
        return sorted(values)[len(values) // 2]

    rate = {name: median([load.requests_per_s for load in taken]) for name, taken in loads.items()}
    slow = {name: median([load.p99_ms for load in taken]) for name, taken in loads.items()}
    cpu = {name: median(taken) * 1e6 for name, taken in spent.items()}
    rows = []
    for title, values, unit, target in (
        (what, rate, "requests/s", "at least 0.8 of the empty route"),
        (f"{what}, p99", slow, "ms", "at most 2 × the empty route"),
        (f"{what}, CPU", cpu, "µs/request", ""),
    ):
        rows += [
            Row(title, name, value, unit, value / values[_EMPTY], target if name == _OURS else "")
            for name, value in values.items()
        ]
    return rows


def _cpu_seconds(server: SubprocessServer) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)
