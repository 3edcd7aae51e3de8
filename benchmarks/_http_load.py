"""Load over HTTP for benchmarks: closed-loop, over kept connections, from another process.

`wrk` where it is installed: written in C, it takes the least from the machine that it measures on.
Otherwise the companion's own generator, in a process of its own. Either way the result says which;
figures of the two are not to be compared with each other, ratios within one of them are.

wrk keeps every latency in microseconds and is asked for its percentiles by a `done` script, since
what it prints is rounded. It then adds the samples which it holds to be missing behind a stall, so
that its percentiles are those of all requests that a steady client would have made; the companion's
are those of the requests made.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from companion.instruments import HttpCaller, aclosed_loop

_CALL_SECONDS = 10.0
_WARM_UP_SECONDS = 1.0


class LoadFailedError(Exception):
    """The generator could not run, as when nobody listens; the message has its last words."""


@dataclass(frozen=True)
class HttpLoad:
    """What one run over HTTP measured.

    `requests_per_s` counts answers below 400 only. `errors` counts the rest by kind: `status`,
    `timeout`, `connect`, `read`, `write`; kinds without any are left out. The latencies are NaN
    where nothing was answered. `tool` says who generated the load.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int]
    tool: str


@dataclass(frozen=True)
class Target:
    """Where the requests go and what they carry: with bodies POST, in turn; without, GET."""

    url: str
    bodies: Sequence[bytes] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def tool() -> str:
    """Who will generate the load here: `wrk` or `companion`."""
    return "wrk" if shutil.which("wrk") else "companion"


def measure(
    url: str,
    *,
    connections: int,
    seconds: float,
    body: bytes | Sequence[bytes] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpLoad:
    """Load `url` from `connections` callers for `seconds`; wrk takes whole seconds, rounded up.

    `body`: the body of every request, or several that are sent in turn (each sent alike would make
    a cache look like a fast model); without one the requests are GETs.

    Raises:
        LoadFailedError: the generator could not run.
        ValueError: no connections or no seconds.
    """
    bodies = [body] if isinstance(body, bytes) else list(body)
    return measure_target(
        Target(url, bodies, headers or {}), connections=connections, seconds=seconds
    )


def measure_target(target: Target, *, connections: int, seconds: float) -> HttpLoad:
    """`measure` for a target made before; raises what that does."""
    if connections < 1 or not seconds > 0:
        raise ValueError(f"connections and seconds must be positive, got {connections=} {seconds=}")
    run = _by_wrk if tool() == "wrk" else _by_companion
    return run(target, connections, seconds)


def interleaved(
    targets: Mapping[str, Target], *, connections: int, seconds: float, rounds: int = 3
) -> dict[str, HttpLoad]:
    """Load the targets in turn (A B C A B C …) after a warm-up each: drift then hits all alike.

    Each figure is the median of its rounds; errors are summed over them.

    Raises what `measure` does.
    """
    for target in targets.values():
        measure_target(target, connections=connections, seconds=_WARM_UP_SECONDS)
    taken: dict[str, list[HttpLoad]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, target in targets.items():
            taken[name].append(measure_target(target, connections=connections, seconds=seconds))
    return {name: _summed_up(loads) for name, loads in taken.items()}


def _summed_up(loads: Sequence[HttpLoad]) -> HttpLoad:
    errors: Counter[str] = Counter()
    for load in loads:
        errors.update(load.errors)
    return HttpLoad(
        statistics.median(load.requests_per_s for load in loads),
        statistics.median(load.p50_ms for load in loads),
        statistics.median(load.p99_ms for load in loads),
        dict(errors),
        loads[0].tool,
    )


_REPORT = "companion-report "
_SCRIPT = """
local bodies, headers, requests, turn = {%(bodies)s}, {%(headers)s}, {}, 0

function init()
  if #bodies == 0 then requests[1] = wrk.format("GET", nil, headers) end
  for number, body in ipairs(bodies) do
    requests[number] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '%(report)s{"requests": %%d, "us": %%d, "p50": %%d, "p99": %%d, "errors": '
      .. '{"status": %%d, "timeout": %%d, "connect": %%d, "read": %%d, "write": %%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.timeout, e.connect, e.read, e.write))
end
"""


def _by_wrk(target: Target, connections: int, seconds: float) -> HttpLoad:
    headers = {**({"Content-Type": "application/json"} if target.bodies else {}), **target.headers}
    script = _SCRIPT % {
        "bodies": ", ".join(map(_lua, target.bodies)),
        "headers": ", ".join(
            f"[{_lua(name.encode())}] = {_lua(value.encode())}" for name, value in headers.items()
        ),
        "report": _REPORT,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "load.lua")
        path.write_text(script, encoding="utf-8")
        options = f"-t1 -c{connections} -d{math.ceil(seconds)}s --timeout={_CALL_SECONDS:.0f}s"
        ended = subprocess.run(
            ["wrk", *options.split(), f"--script={path}", target.url],
            capture_output=True,
            text=True,
            check=False,
        )
    reports = [line for line in ended.stdout.splitlines() if line.startswith(_REPORT)]
    if ended.returncode or not reports:
        raise LoadFailedError(f"wrk on {target.url}: {(ended.stderr or ended.stdout).strip()}")
    said = json.loads(reports[-1].removeprefix(_REPORT))
    errors = {kind: count for kind, count in said["errors"].items() if count}
    answered = said["requests"]
    return HttpLoad(
        (answered - errors.get("status", 0)) / (said["us"] / 1e6),
        said["p50"] / 1e3 if answered else math.nan,
        said["p99"] / 1e3 if answered else math.nan,
        errors,
        "wrk",
    )


def _lua(text: bytes) -> str:
    """A Lua string of exactly these bytes, whatever they are."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text) + '"'


def _by_companion(target: Target, connections: int, seconds: float) -> HttpLoad:
    bodies = [base64.b64encode(body).decode() for body in target.bodies]
    order = {
        "url": target.url,
        "bodies": bodies,
        "headers": dict(target.headers),
        "connections": connections,
        "seconds": seconds,
    }
    ended = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it wrote nothing"]
        raise LoadFailedError(f"load on {target.url}: {last[0]}")
    return HttpLoad(**json.loads(ended.stdout), tool="companion")


_KINDS = {"HttpStatusError": "status", "TimeoutError": "timeout", "IncompleteReadError": "read"}


async def _generate(order: Mapping[str, Any]) -> dict[str, object]:
    bodies = [base64.b64decode(body) for body in order["bodies"]]
    async with HttpCaller(
        order["url"], bodies=bodies, headers=order["headers"], timeout=_CALL_SECONDS
    ) as call:
        # That nobody listens is told at once, and not counted by the thousand.
        await call.connect()
        result = await aclosed_loop(call, seconds=order["seconds"], workers=order["connections"])
    errors: Counter[str] = Counter()
    for name, count in result.errors.items():
        errors[_KINDS.get(name, "connect")] += count
    answered = len(result.latencies) > 0
    return {
        "requests_per_s": result.throughput,
        "p50_ms": result.percentile(50) * 1e3 if answered else math.nan,
        "p99_ms": result.percentile(99) * 1e3 if answered else math.nan,
        "errors": dict(errors),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_generate(json.load(sys.stdin)))))
