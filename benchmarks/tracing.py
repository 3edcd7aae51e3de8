"""What it costs a request to be traceable, in one run, beside the way that is usually shown.

Every contender is called as a server calls it, without a server: scope in, messages out. The
differences to the bare application are what each layer costs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import ASGIApp

from companion.instruments.benchmark import Row, side_by_side
from companion.serving.tracing import AccessLines, AccessLog, RequestId, ServerTiming, span
from companion.serving.tracing.telemetry import OFF, telemetry

TITLE = "Tracing"

_HEADERS = [
    (b"host", b"scores.example"),
    (b"user-agent", b"bench"),
    (b"content-type", b"application/json"),
    (b"content-length", b"412"),
    (b"x-api-key", b"k" * 43),
]
_GIVEN = [*_HEADERS, (b"x-request-id", b"0af7651916cd43dd")]


def run() -> list[Row]:
    return [*_middleware(), *_spans(), *_traces()]


async def _respond(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def _request(app: ASGIApp, headers: list[tuple[bytes, bytes]] = _HEADERS) -> Callable[[], None]:
    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    def one() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/score",
            "raw_path": b"/score",
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
        }
        try:  # nothing in it waits, so it runs to its end without an event loop
            app(scope, receive, send).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise RuntimeError("the application waits for something")

    return one


def _rows(what: str, contenders: dict[str, Callable[[], None]], number: int) -> list[Row]:
    seconds = side_by_side(contenders, rounds=15, number=number)
    base = next(iter(seconds.values()))
    return [
        Row(what, name, (took - base if place else took) * 1e6, "µs", took / base)
        for place, (name, took) in enumerate(seconds.items())
    ]


def _middleware() -> list[Row]:
    lines = AccessLines(io.StringIO(), capacity=1)
    everything = RequestId(AccessLog(ServerTiming(_respond), lines))
    return _rows(
        "one request: bare, and what is added to it",
        {
            "bare application": _request(_respond),
            "RequestId, makes one": _request(RequestId(_respond)),
            "RequestId, takes one over": _request(RequestId(_respond), _GIVEN),
            "ServerTiming": _request(ServerTiming(_respond)),
            "AccessLog": _request(AccessLog(_respond, lines)),
            "all three": _request(everything),
        },
        number=3000,
    )


def _spans() -> list[Row]:
    async def with_spans(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(10):
            with span("model"):
                pass
        await _respond(scope, receive, send)

    return _rows(
        "ten spans in one request",
        {
            "ServerTiming without": _request(ServerTiming(_respond)),
            "ten spans": _request(ServerTiming(with_spans)),
            "ten spans, recorded nowhere": _request(with_spans),
        },
        number=1000,
    )


def _traces() -> list[Row]:
    on = telemetry(InMemorySpanExporter())
    assert on.provider is not None

    def service(settings: Any, steps: Callable[[str], Any]) -> FastAPI:
        app = FastAPI(telemetry=settings)

        @app.get("/score")
        async def score() -> int:
            with steps("model"):
                return 1

        return app

    try:
        return _rows(
            "one FastAPI request: plain, and what traces add",
            {
                "no traces": _request(service(OFF.settings, OFF.span)),
                "traces off": _request(OFF.around(service(OFF.settings, OFF.span))),
                "two spans": _request(on.around(service(on.settings, on.span))),
            },
            number=300,
        )
    finally:
        on.provider.shutdown()
