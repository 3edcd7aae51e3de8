"""Where the time of a request went, in its own answer."""

import asyncio
import contextlib
import re
import threading

import pytest
from fastapi import FastAPI, HTTPException

from companion.instruments import FakeClock
from companion.serving.tracing import ServerTiming, span


def durations(response):
    """The header as {name: milliseconds}; it must follow the syntax of W3C Server Timing."""
    (header,) = response.headers.get_list("server-timing")
    metrics = header.split(", ")
    assert all(re.fullmatch(r"[\w-]+;dur=\d+\.\d{3}", metric) for metric in metrics), header
    return {name: float(dur) for name, dur in (m.split(";dur=") for m in metrics)}


def respond(work=lambda: None, status=200, headers=()):
    async def app(scope, receive, send):
        work()
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b""})

    return app


def timed(get, work):
    """What the header says about `work(clock)`."""
    clock = FakeClock()
    return durations(get(ServerTiming(respond(lambda: work(clock)), clock=clock)))


def test_spans_and_the_total_come_in_milliseconds(get):
    def work(clock):
        with span("features"):
            clock.advance(0.0125)
        clock.advance(0.0005)
        with span("model"):
            clock.advance(0.002)

    assert timed(get, work) == {"features": 12.5, "model": 2.0, "total": 15.0}


def test_without_spans_there_is_the_total(get):
    assert timed(get, lambda clock: clock.advance(0.25)) == {"total": 250.0}


def test_spans_nest_and_each_counts_its_whole_duration(get):
    def work(clock):
        with span("features"):
            clock.advance(0.001)
            with span("store"):
                clock.advance(0.003)

    assert timed(get, work) == {"store": 3.0, "features": 4.0, "total": 4.0}


def test_spans_of_one_name_are_added_up(get):
    def work(clock):
        for _ in range(1000):
            with span("store"):
                clock.advance(0.001)

    assert timed(get, work) == {"store": 1000.0, "total": 1000.0}


def test_a_span_whose_block_raises_is_recorded(get):
    def work(clock):
        with contextlib.suppress(KeyError), span("features"):
            clock.advance(0.001)
            raise KeyError

    assert timed(get, work) == {"features": 1.0, "total": 1.0}


def test_a_span_that_has_not_ended_is_not_told(get):
    def work(clock):
        span("never-ends").__enter__()

    assert timed(get, work) == {"total": 0.0}


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a,b", 'a"b', "a\n", "é", "total"])
def test_a_name_that_the_header_cannot_hold_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a span"):
        span(name)


def test_outside_of_a_request_a_span_does_nothing():
    with span("features"):
        pass


CLOCK = FakeClock()


def service():
    app = FastAPI()

    @app.get("/async")
    async def in_a_coroutine():
        with span("model"):
            await asyncio.sleep(0)
            CLOCK.advance(0.001)

    @app.get("/sync")
    def in_a_thread():
        with span("model"):
            CLOCK.advance(0.001)

    @app.get("/refused")
    def refused():
        with span("model"):
            raise HTTPException(404)

    @app.get("/number/{number}")
    def number(number: int):
        return number

    @app.get("/broken")
    def broken():
        with span("model"):
            raise RuntimeError("unhandled")

    return app


APP = ServerTiming(service(), clock=CLOCK)


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_spans_arrive_from_coroutines_and_from_threads(get, path):
    assert durations(get(APP, path))["model"] >= 1.0


@pytest.mark.parametrize(
    ("path", "status", "names"),
    [
        ("/refused", 404, {"model", "total"}),
        ("/nowhere", 404, {"total"}),
        ("/number/x", 422, {"total"}),
        ("/broken", 500, {"model", "total"}),
    ],
)
def test_answers_that_are_errors_carry_it_too(get, path, status, names):
    response = get(APP, path)
    assert response.status_code == status
    assert set(durations(response)) == names


def test_requests_at_once_never_mix(exchange):
    """Fifty requests, each with a span of its own name, all inside it at the same time."""
    together = asyncio.Barrier(50)

    async def app(scope, receive, send):
        with span(scope["path"][1:]):
            await together.wait()
        await respond()(scope, receive, send)

    responses = exchange(ServerTiming(app), *(("GET", f"/n{i}", {}) for i in range(50)))
    assert [set(durations(r)) for r in responses] == [{f"n{i}", "total"} for i in range(50)]


def test_threads_of_one_request_share_its_record(get):
    async def app(scope, receive, send):
        def work():
            for _ in range(200):
                with span("part"):
                    pass

        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
        await respond()(scope, receive, send)

    lock, ticks = threading.Lock(), iter(range(10**6))

    def ticking():
        with lock:
            return next(ticks) / 1000

    # 800 spans and the total read the clock twice each; none is lost.
    told = durations(get(ServerTiming(app, clock=ticking)))
    assert told["total"] == 1601.0


def test_a_header_that_the_application_sends_itself_is_kept(get):
    app = ServerTiming(respond(headers=[(b"server-timing", b"db;dur=1")]))
    first, second = get(app).headers.get_list("server-timing")
    assert first == "db;dur=1"
    assert second.startswith("total;dur=")


def test_a_message_that_the_application_sends_again_is_left_as_it_is(get):
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    get(ServerTiming(app))
    assert start["headers"] == []


async def nothing():
    raise AssertionError("nobody calls this")


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass_untouched(kind):
    async def run():
        seen = []

        async def app(*args):
            with span("model"):
                seen.append(args)

        scope = {"type": kind}
        await ServerTiming(app)(scope, nothing, nothing)
        return seen == [(scope, nothing, nothing)]

    assert asyncio.run(run())


def test_after_the_request_nothing_is_recorded_any_more():
    """A span that begins later, in the same task, must not keep the old record alive."""
    clock_reads = []

    async def run():
        async def drop(message):
            pass

        app = ServerTiming(respond(), clock=lambda: clock_reads.append(1) or 0.0)
        await app({"type": "http", "headers": []}, nothing, drop)
        before = len(clock_reads)
        with span("later"):
            pass
        return len(clock_reads) - before

    assert asyncio.run(run()) == 0
