"""One line for each request, written beside it."""

import asyncio
import io
import json
import select
import threading

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from companion.instruments import FakeClock
from companion.serving.tracing import AccessLines, AccessLog, RequestId, Served
from companion.serving.tracing.telemetry import telemetry

SERVED = Served(1_700_000_000.5, "GET", "/score", 200, 0.0125, "abc", "")


def service(clock):
    app = FastAPI()

    @app.get("/score")
    async def score():
        clock.advance(0.25)

    @app.get("/broken")
    async def broken():
        clock.advance(0.5)
        raise RuntimeError("unhandled")

    return app


@pytest.mark.parametrize(
    ("path", "status", "seconds"), [("/score", 200, 0.25), ("/broken", 500, 0.5), ("/no", 404, 0.0)]
)
def test_every_request_is_told_with_status_and_duration(get, path, status, seconds):
    clock, told = FakeClock(), []
    app = RequestId(AccessLog(service(clock), told.append, clock=clock, now=lambda: 7.0))
    get(app, f"{path}?card=secret", {"X-Request-ID": "abc"})
    assert told == [Served(7.0, "GET", path, status, seconds, "abc", "")]


def test_a_trace_is_told_by_its_id(get):
    told, traces = [], telemetry(InMemorySpanExporter())
    app = AccessLog(FastAPI(telemetry=traces.settings), told.append)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    get(app, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert told[0].trace_id == trace_id
    traces.provider.shutdown()


async def nothing(*args):
    return None


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_are_not_told(kind):
    told, seen = [], []

    async def app(*args):
        seen.append(args)

    asyncio.run(AccessLog(app, told.append)({"type": kind}, nothing, nothing))
    assert seen == [({"type": kind}, nothing, nothing)]
    assert told == []


def test_a_client_that_goes_away_is_told_without_a_status():
    told = []

    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def run():
        scope = {"type": "http", "method": "GET", "path": "/score", "headers": []}
        task = asyncio.create_task(AccessLog(app, told.append)(scope, nothing, nothing))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert [(t.path, t.status) for t in told] == [("/score", None)]


def test_a_line_is_one_json_object():
    stream = io.StringIO()
    with AccessLines(stream, every=60) as note:
        note(SERVED)
        note(SERVED._replace(trace_id="0af7"))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "INFO",
        "logger": "access",
        "method": "GET",
        "path": "/score",
        "status": 200,
        "duration_ms": 12.5,
        "request_id": "abc",
    }
    assert second["trace_id"] == "0af7"


def test_a_path_cannot_forge_a_line():
    stream = io.StringIO()
    path = '/a\n{"level": "INFO"}\r\x85\u2028\x7f\x1b'
    with AccessLines(stream, every=60) as note:
        note(SERVED._replace(path=path, method="GET\n"))
    (line,) = stream.getvalue().splitlines()
    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line)["path"] == path


class Counting(io.StringIO):
    """A stream that keeps what each call wrote."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, text):
        self.calls.append(text)
        return super().write(text)


def test_many_lines_are_written_by_few_calls_that_a_pipe_takes_whole():
    stream = Counting()
    with AccessLines(stream, every=60) as note:
        for _ in range(1000):
            note(SERVED)
        assert stream.calls == []
        note.write()
    assert len(stream.getvalue().splitlines()) == 1000
    assert len(stream.calls) < 100
    assert max(map(len, stream.calls)) <= select.PIPE_BUF
    assert all(call.endswith("\n") for call in stream.calls)


def test_a_line_longer_than_that_is_written_by_itself():
    stream = Counting()
    with AccessLines(stream, every=60) as note:
        for path in ("/a", "/" + "b" * 10_000, "/c"):
            note(SERVED._replace(path=path))
    assert [json.loads(call)["path"][:2] for call in stream.calls] == ["/a", "/b", "/c"]


def test_what_does_not_fit_is_counted_and_said():
    stream = io.StringIO()
    with AccessLines(stream, capacity=10, every=60) as note:
        for _ in range(25):
            note(SERVED)
        note.write()
        note(SERVED)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(told) == 12
    assert told[10] == {"level": "WARNING", "logger": "access", "lost": 15}


class Gate(io.StringIO):
    """A stream that says when it was written to."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def write(self, text):
        self.written.set()
        return super().write(text)


def test_lines_are_written_while_it_runs():
    stream = Gate()
    with AccessLines(stream, every=0.001) as note:
        note(SERVED)
        assert stream.written.wait(10)


class Full(Gate):
    """A stream on a disk that is full at first."""

    failures = 1

    def write(self, text):
        if self.failures:
            self.failures -= 1
            raise OSError("no space left")
        return super().write(text)


def test_what_a_failing_stream_lost_is_said_by_the_next_write():
    stream = Full()
    with AccessLines(stream, every=60) as note:
        note(SERVED)
        note(SERVED)
        with pytest.raises(OSError, match="no space left"):
            note.write()
        note(SERVED)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["path"] == "/score"
    assert second["lost"] == 2


def test_the_thread_survives_a_failing_stream_and_logs_it(caplog):
    stream = Full()
    with AccessLines(stream, every=0.001) as note:
        note(SERVED)
        assert stream.written.wait(10)
    assert caplog.text.count("no space left") == 1


@pytest.mark.parametrize("settings", [{"capacity": 0}, {"every": 0}, {"every": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="must be positive"):
        AccessLines(io.StringIO(), **settings)
