"""Q45 · Latency above 500 ms: the exercise, its checks, and the mistakes they catch."""

import asyncio
import re
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar

import httpx
from fastapi import FastAPI, HTTPException

from companion.instruments.clocks import FakeClock
from companion.study import Exercise, Stage

exercise = Exercise(
    "ServerTiming",
    hints={
        "start": (
            "Begin with `await self.app(scope, receive, send)` for every scope, and a span that "
            "does nothing.",
            "Then three parts: a record for each request, a span that adds (name, seconds) to the "
            "current record, and a send of your own that writes it into the first message.",
            "The record is a plain list, put into a ContextVar before the application is called. "
            "Threads get a copy of the context, but the copy holds the same list.",
        ),
        "pass-through": (
            "What else does a server call an application with, besides HTTP requests?",
            'First line of __call__: if scope["type"] is not "http", await self.app with the very '
            "same three arguments and return.",
        ),
        "header": (
            "The client reads one header, server-timing. In which message is the room for it?",
            "For a message of type 'http.response.start' add (b'server-timing', value) to its "
            "headers; the value is 'name;dur=ms' for each span, joined by ', ', and total at last.",
        ),
        "milliseconds": (
            "The clock gives seconds. What unit does dur have?",
            "f'{name};dur={seconds * 1000:.3f}'",
        ),
        "clock": (
            "Which clock do you read, and what happens to it when the machine's time is corrected?",
            "Read the time only as the clock that the middleware was given; the span finds it in "
            "the record of its request. Its default, perf_counter, never goes back.",
        ),
        "total": (
            "What does the client wait for besides your spans?",
            "Read the clock first thing in __call__ and again when the answer begins; the "
            "difference is total, whatever the spans add up to.",
        ),
        "raises": (
            "The block raised. Slow failures are the ones to look for: what does your record say?",
            "with span(…) is try … finally: take the time in the finally (or in __exit__), and let "
            "the exception go on.",
        ),
        "every-answer": (
            "A refused request was slow as well. Does its answer tell where the time went?",
            "Do not look at the status, and put nothing after `await self.app(…)`: every answer, "
            "also the one made of an exception, passes through send.",
        ),
        "outside": (
            "A script calls the same function, and no request is being served. What happens?",
            "The ContextVar has a default of None; a span that finds None does nothing. Reset the "
            "variable in a finally, or the last request's record stays behind.",
        ),
        "threads": (
            "FastAPI runs a `def` endpoint in a worker thread. Where does the span look there?",
            "threading.local is empty in that thread. The context is copied into it, so a "
            "ContextVar with a list that both sides share arrives.",
        ),
        "mixed-up": (
            "Many requests are being served at the same time. Whose spans are in this header?",
            "A list of the module or of the middleware belongs to all of them. Make a new one in "
            "each __call__, and keep it in a ContextVar.",
        ),
    },
)


def talk(app, *paths):
    """GET all `paths` at once; the responses."""
    unwritten = []

    async def answering(scope, receive, send):
        try:
            await app(scope, receive, send)
        except NotImplementedError as error:  # to be told as such, not answered with 500
            unwritten.append(error)
            raise

    async def run():
        transport = httpx.ASGITransport(answering, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await asyncio.gather(*(client.get(path) for path in paths))

    responses = asyncio.run(run())
    if unwritten:
        raise unwritten[0]
    return responses


def serving(work):
    """An application that calls `work()` and answers."""

    async def app(scope, receive, send):
        work()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


def told(response):
    """The header as a list of (name, milliseconds), or its text where it is something else."""
    header = response.headers.get("server-timing", "(no header)")
    metrics = [re.fullmatch(r"([\w-]+);dur=(\d+(?:\.\d+)?)", m) for m in header.split(", ")]
    return [(m[1], round(float(m[2]), 3)) for m in metrics] if all(metrics) else header


def some_ms(case):
    return float(case.rng.integers(1, 10_000)) / 8


@exercise.check(Stage.TYPE, hint="header")
def an_answer_tells_its_total(attempt, case):
    """an answer carries one header server-timing, with the total"""
    (response,) = talk(attempt(serving(lambda: None)), "/")
    headers = response.headers.get_list("server-timing")
    case.true(
        len(headers) == 1 and re.fullmatch(r"total;dur=\d+(\.\d+)?", headers[0]),
        given="a request without spans",
        expected="one header server-timing, such as total;dur=0.012",
        got=headers,
    )


@exercise.check(Stage.TYPE, hint="pass-through")
def other_scopes_pass(attempt, case):
    """websockets and lifespan reach the application untouched"""

    async def receive():
        return {}

    async def send(message):
        return None

    for kind in ("lifespan", "websocket"):
        seen = []

        async def app(*args, seen=seen):
            seen.append(args)

        scope = {"type": kind}
        asyncio.run(attempt(app)(scope, receive, send))
        case.true(
            len(seen) == 1 and seen[0] == (scope, receive, send),
            given=f"a scope of type {kind!r}",
            expected="the application is called once, with the same scope, receive and send",
            got=seen,
        )


@exercise.check(Stage.SHAPE, hint="header")
def spans_come_in_order_and_total_last(attempt, case):
    """each span is in the header under its name, in the order in which they ended, total last"""

    def work():
        with attempt.span("features"), attempt.span("store"):
            pass
        with attempt.span("model"):
            pass

    (response,) = talk(attempt(serving(work), clock=FakeClock()), "/")
    got = told(response)
    case.equal(
        given="a span features with a span store inside, then a span model: the names",
        expected=["store", "features", "model", "total"],
        got=got if isinstance(got, str) else [name for name, _ in got],
    )


@exercise.check(Stage.RANGE, hint="milliseconds")
def durations_are_milliseconds(attempt, case):
    """a span of one second is a thousand milliseconds"""
    clock = FakeClock()

    def work():
        with attempt.span("model"):
            clock.advance(1.0)

    (response,) = talk(attempt(serving(work), clock=clock), "/")
    got = told(response)
    case.true(
        isinstance(got, list) and got[0][1] not in (1.0, 1e6),
        given="a span during which the clock moves by one second",
        expected="model;dur=1000.0",
        got=response.headers.get("server-timing"),
    )


@exercise.check(Stage.VALUE, hint="clock")
def spans_last_as_long_as_the_clock_says(attempt, case):
    """a span lasts as long as the given clock says, also when spans are nested"""
    clock = FakeClock(start=1000.0)
    inner, outer = some_ms(case), some_ms(case)

    def work():
        with attempt.span("features"):
            clock.advance(outer / 1e3)
            with attempt.span("store"):
                clock.advance(inner / 1e3)

    (response,) = talk(attempt(serving(work), clock=clock), "/")
    got = told(response)
    case.equal(
        given=f"features takes {outer} ms and then {inner} ms in a span store inside",
        expected=[("store", inner), ("features", inner + outer)],
        got=got if isinstance(got, str) else got[:2],
    )


@exercise.check(Stage.VALUE, hint="total")
def the_total_is_all_of_it(attempt, case):
    """the total runs from the call of the middleware to the start of the answer"""
    clock = FakeClock(start=1000.0)
    before, within, after = (some_ms(case) for _ in range(3))

    async def app(scope, receive, send):
        clock.advance(before / 1e3)
        with attempt.span("model"):
            clock.advance(within / 1e3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.advance(after / 1e3)
        await send({"type": "http.response.body", "body": b""})

    (response,) = talk(attempt(app, clock=clock), "/")
    got = told(response)
    case.equal(
        given=f"{before} ms, a span of {within} ms, the answer begins, {after} ms more",
        expected=("total", before + within),
        got=got if isinstance(got, str) else got[-1],
    )


@exercise.check(Stage.VALUE, hint="raises")
def a_span_that_raises_is_recorded(attempt, case):
    """a span whose block raises is recorded, and the exception goes on"""
    clock, took, seen = FakeClock(), some_ms(case), []

    def work():
        try:
            with attempt.span("store"):
                clock.advance(took / 1e3)
                raise KeyError("missing")
        except KeyError:
            seen.append("KeyError")

    (response,) = talk(attempt(serving(work), clock=clock), "/")
    given = f"a block that raises KeyError after {took} ms"
    case.equal(given=f"{given}: what its caller sees", expected=["KeyError"], got=seen)
    case.equal(given=given, expected=[("store", took), ("total", took)], got=told(response))


@exercise.check(Stage.VALUE, hint="outside")
def outside_of_a_request_it_does_nothing(attempt, case):
    """before, between and after requests a span does nothing"""

    async def run():
        async def drop(message):
            return None

        def read():
            reads.append(1)
            return 0.0

        reads = []
        with attempt.span("before"):
            pass
        await attempt(serving(lambda: None), clock=read)({"type": "http"}, None, drop)
        so_far = len(reads)
        with attempt.span("after"):
            pass
        return len(reads) - so_far

    case.equal(
        given="a span after a request in the same task: how often it reads the request's clock",
        expected=0,
        got=asyncio.run(run()),
    )


def service(attempt):
    app = FastAPI()

    @app.get("/coroutine")
    async def coroutine():
        with attempt.span("model"):
            await asyncio.sleep(0)

    @app.get("/thread")
    def thread():
        with attempt.span("model"):
            return threading.current_thread().name

    @app.get("/refused")
    async def refused():
        with attempt.span("model"):
            raise HTTPException(404)

    @app.get("/bug")
    async def bug():
        with attempt.span("model"):
            raise RuntimeError("a bug")

    return app


def names_told(response):
    got = told(response)
    return got if isinstance(got, str) else [name for name, _ in got]


@exercise.check(Stage.VALUE, hint="threads")
def a_worker_thread_is_timed_too(attempt, case):
    """spans arrive from a coroutine and from the worker thread of a `def` endpoint"""
    for path in ("/coroutine", "/thread"):
        (response,) = talk(attempt(service(attempt)), path)
        case.equal(given=f"GET {path}", expected=["model", "total"], got=names_told(response))


@exercise.check(Stage.VALUE, hint="every-answer")
def errors_are_timed_too(attempt, case):
    """a 404 and an unhandled 500 carry the header too"""
    for path in ("/refused", "/bug"):
        (response,) = talk(attempt(service(attempt)), path)
        case.equal(
            given=f"GET {path}, answered with {response.status_code}",
            expected=["model", "total"],
            got=names_told(response),
        )


@exercise.check(Stage.STRESS, hint="mixed-up")
def requests_at_once_never_mix(attempt, case):
    """forty requests at the same time, each with a span of its own, never mix"""
    names = [f"part-{n}" for n in case.rng.permutation(1000)[:40]]
    together = asyncio.Barrier(len(names))

    async def app(scope, receive, send):
        await together.wait()
        with attempt.span(scope["path"][1:]):
            await together.wait()
        await together.wait()
        await serving(lambda: None)(scope, receive, send)

    responses = talk(attempt(app), *(f"/{name}" for name in names))
    wrong = [
        (name, names_told(response))
        for name, response in zip(names, responses, strict=True)
        if names_told(response) != [name, "total"]
    ]
    case.true(
        not wrong,
        given=f"{len(names)} requests inside their spans at the same time",
        expected="each header has its own span and the total",
        got=f"{len(wrong)} have others, for instance {wrong[:1]}",
    )


@exercise.solution
class ServerTiming:
    _current = ContextVar("server_timing", default=None)  # (clock, spans) of a request

    def __init__(self, app, clock=time.perf_counter):
        self.app, self.clock = app, clock

    @staticmethod
    @contextmanager
    def span(name):
        record = ServerTiming._current.get()
        if record is None:
            yield
            return
        clock, spans = record
        begun = clock()
        try:
            yield
        finally:
            spans.append((name, clock() - begun))

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, spans = self.clock(), []

        async def send_with_timing(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), self.pair(all_of())]}
            await send(message)

        def all_of():
            return [*spans, ("total", self.clock() - begun)]

        token = self._current.set((self.clock, spans))
        try:
            await self.app(scope, receive, send_with_timing)
        finally:
            self._current.reset(token)

    @staticmethod
    def pair(durations):
        value = ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in durations)
        return b"server-timing", value.encode()


_stopwatch = ContextVar("stopwatch", default=None)


@exercise.another_way
class WithStopwatches:
    """A different shape: an object per request that is its own send, and a span class."""

    class Stopwatch:
        def __init__(self, send, clock):
            self.send, self.clock, self.begun, self.told = send, clock, clock(), []

        def stop(self, name, begun):
            self.told.append(f"{name};dur={(self.clock() - begun) * 1000}")

        async def __call__(self, message):
            if message["type"].endswith("response.start"):
                self.stop("total", self.begun)
                header = (b"server-timing", ", ".join(self.told).encode("ascii"))
                message = message | {"headers": list(message.get("headers") or []) + [header]}  # noqa: RUF005
            await self.send(message)

    class span:  # noqa: N801
        def __init__(self, name):
            self.name, self.watch = name, None

        def __enter__(self):
            self.watch = _stopwatch.get()
            self.begun = self.watch.clock() if self.watch else None

        def __exit__(self, *error):
            if self.watch:
                self.watch.stop(self.name, self.begun)

    def __init__(self, app, clock=time.perf_counter):
        self.app, self.clock = app, clock

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        watch = self.Stopwatch(send, self.clock)
        token = _stopwatch.set(watch)
        try:
            return await self.app(scope, receive, watch)
        finally:
            _stopwatch.reset(token)


@exercise.wrong("header")
class PrintsAsReceived(ServerTiming):
    """The received answer's way: the durations are printed, and the client hears nothing."""

    @staticmethod
    @contextmanager
    def span(name):
        begun = time.time()
        yield
        print(f"{name}: {(time.time() - begun) * 1000:.1f}ms")

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@exercise.wrong("pass-through")
class OnlyRequests(ServerTiming):
    """Wraps the send of websockets and of lifespan as well."""

    async def __call__(self, scope, receive, send):
        await super().__call__({**scope, "type": "http"}, receive, send)


@exercise.wrong("header")
class InOrderOfTheirBeginning(ServerTiming):
    """Notes a span when it begins, so the order is another one."""

    @staticmethod
    @contextmanager
    def span(name):
        record = ServerTiming._current.get()
        if record is None:
            yield
            return
        clock, spans = record
        place, begun = len(spans), clock()
        spans.append((name, 0.0))
        try:
            yield
        finally:
            spans[place] = (name, clock() - begun)


@exercise.wrong("milliseconds")
class Seconds(ServerTiming):
    """Writes seconds where the header has milliseconds."""

    @staticmethod
    def pair(durations):
        return ServerTiming.pair([(name, seconds / 1e3) for name, seconds in durations])


@exercise.wrong("clock")
class WallClock(ServerTiming):
    """Reads the wall clock, which is corrected while you measure."""

    def __init__(self, app, clock=None):
        super().__init__(app, time.time)


@exercise.wrong("total")
class TotalOfTheSpans(ServerTiming):
    """Adds the spans up: what lies between them is lost, and what is nested counts twice."""

    @staticmethod
    def pair(durations):
        *spans, _ = durations
        return ServerTiming.pair([*spans, ("total", sum(seconds for _, seconds in spans))])


@exercise.wrong("raises")
class ForgetsWhatRaises(ServerTiming):
    """Takes the time after the block, where a block that raises never arrives."""

    @staticmethod
    @contextmanager
    def span(name):
        record = ServerTiming._current.get()
        begun = record[0]() if record else 0.0
        yield
        if record:
            record[1].append((name, record[0]() - begun))


@exercise.wrong("outside")
class NeedsARequest(ServerTiming):
    """Fails where no request is being served: in scripts, tests and jobs."""

    @staticmethod
    @contextmanager
    def span(name):
        clock, spans = ServerTiming._current.get()
        begun = clock()
        try:
            yield
        finally:
            spans.append((name, clock() - begun))


@exercise.wrong("outside")
class NeverReset(ServerTiming):
    """The record stays behind for whatever runs next in the same context."""

    async def __call__(self, scope, receive, send):
        seen = []

        async def noting(*args):
            seen.append(self._current.get())
            await self.app(*args)

        try:
            await ServerTiming(noting, self.clock)(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self._current.set(seen[0])


class _PerThread(threading.local):
    record = None

    def get(self):
        return self.record

    def set(self, record):
        before, self.record = self.record, record
        return before

    def reset(self, before):
        self.record = before


def kept_in(variable):
    """The solution, with its record kept elsewhere."""

    class Kept(ServerTiming):
        _current = variable

        @staticmethod
        @contextmanager
        def span(name):
            clock, spans = variable.get() or (time.perf_counter, [])
            begun = clock()
            try:
                yield
            finally:
                spans.append((name, clock() - begun))

    return Kept


@exercise.wrong("threads")
class ThreadLocal(kept_in(_PerThread())):
    """Thread-local storage is empty in the worker thread."""


@exercise.wrong("every-answer")
class OnlyGoodAnswers(ServerTiming):
    """Leaves the header off when the status is an error."""

    async def __call__(self, scope, receive, send):
        async def without(message):
            if message.get("status", 200) >= 400:
                message = {**message, "headers": message["headers"][:-1]}
            await send(message)

        await super().__call__(scope, receive, without if scope["type"] == "http" else send)


class _Global:
    record = None

    def get(self):
        return self.record

    def set(self, record):
        before, self.record = self.record, record
        return before

    def reset(self, before):
        self.record = None


@exercise.wrong("mixed-up")
class ModuleGlobal(kept_in(_Global())):
    """One record for the process: a header tells the spans of other people's requests."""
