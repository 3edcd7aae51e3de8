"""Q29 · Request tracing: the exercise, its checks, and the mistakes they catch."""

import asyncio
import contextlib
import functools
import re
import threading
import uuid
from contextvars import ContextVar

import httpx
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware

from companion.study import Exercise, Stage

exercise = Exercise(
    "RequestIdMiddleware",
    hints={
        "start": (
            "Begin with the smallest middleware: `await self.app(scope, receive, send)`, for "
            "every scope. Then give the application a `send` of your own.",
            "A request's headers are pairs of bytes in scope['headers'], with names in lower case. "
            "An answer begins with one message, 'http.response.start', that has headers too.",
            "Three steps for an HTTP scope: choose the id, put it where current() finds it, and "
            "call the application with a send that adds one pair to the first message.",
        ),
        "pass-through": (
            "What else does a server call an application with, besides HTTP requests?",
            'First line of __call__: if scope["type"] is not "http", await self.app with the very '
            "same three arguments and return.",
        ),
        "answer": (
            "The client should find the request's id in its answer. In which message is the room "
            "for it?",
            "Wrap send: for a message of type 'http.response.start' add (name, value), both bytes, "
            "to message['headers'], then pass the message on.",
        ),
        "take-over": (
            "The client sent a good id. Which one is on the answer?",
            "Look through scope['headers'] for your header's name, as lower-case bytes, and take "
            "its value over when it fits the rule.",
        ),
        "rule": (
            "This text goes into every log line of the request. Who chose its characters?",
            "One expression that must match the whole of it: letters, digits, - and _, 1 to 64.",
            "On bytes: re.compile(rb'[A-Za-z0-9_-]{1,64}').fullmatch(value). \\w and isalnum() "
            "know letters of all alphabets, and $ also matches before a final line feed.",
        ),
        "new-each-time": (
            "Two requests without an id. How do you tell their log lines apart?",
            "Make the new id inside __call__, for instance uuid.uuid4().hex.",
        ),
        "every-answer": (
            "The application failed, and this 500 came back with no id: the answer that you need "
            "it for most.",
            "Code after an await does not run when the awaited call raises. Where does every "
            "answer pass, also the one that the framework makes of an exception?",
            "Through send, wrapped around the whole application: nothing has to come after "
            "`await self.app(…)`.",
        ),
        "current": (
            "The code that serves the request asks for its id. What does it get?",
            "Set it before the application is called, where coroutines and the framework's worker "
            "threads find it: in a ContextVar.",
        ),
        "mixed-up": (
            "Many requests are under way at once, in one process and on one thread. Whose id does "
            "your storage hold?",
            "A module global belongs to the process and threading.local to the thread. A coroutine "
            "has neither to itself: use a ContextVar.",
        ),
        "reset": (
            "The request is over, well or badly. What does current() say now?",
            "token = variable.set(id) before, variable.reset(token) after, in a finally.",
        ),
        "same-message": (
            "The application sends the same message object for each answer, as a constant. What "
            "does it look like after three requests?",
            "It belongs to the application: send on a copy, {**message, 'headers': […, pair]}.",
        ),
    },
)

GOOD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def good_id(case, length=12):
    return "".join(case.rng.choice(list(GOOD), length))


def talk(app, *requests, at_once=False):
    """Send (path, headers) to an application, one after the other or all at once; the responses."""
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
            calls = [client.get(path, headers=headers) for path, headers in requests]
            return await asyncio.gather(*calls) if at_once else [await call for call in calls]

    responses = asyncio.run(run())
    if unwritten:
        raise unwritten[0]
    return responses


def service(tell=lambda: None):
    """An application whose endpoints answer what `tell()` says there."""
    app = FastAPI()

    @app.get("/async")
    async def in_a_coroutine():
        await asyncio.sleep(0)
        return tell()

    @app.get("/sync")
    def in_a_worker_thread():
        return tell()

    @app.get("/number/{number}")
    async def number(number: int):
        return number

    @app.get("/bug")
    async def bug():
        raise RuntimeError("a bug")

    return app


def asked(attempt, *requests):
    """The responses to requests (path, id or None), one after the other."""
    app = attempt(service(attempt.current))
    return talk(
        app, *((path, {b"X-Request-ID": i} if i is not None else {}) for path, i in requests)
    )


@exercise.check(Stage.TYPE, hint="answer")
def an_answer_carries_an_id(attempt, case):
    """an answer carries an id"""
    (response,) = talk(attempt(service()), ("/async", {}))
    case.true(
        response.headers.get("x-request-id"),
        given="a request without an id, answered with 200",
        expected="the header x-request-id on the answer",
        got=dict(response.headers),
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
            len(seen) == 1 and seen[0] == (scope, receive, send) and scope == {"type": kind},
            given=f"a scope of type {kind!r}",
            expected="the application is called once, with the same scope, receive and send",
            got=seen,
        )


@exercise.check(Stage.SHAPE, hint="take-over")
def a_good_id_is_taken_over(attempt, case):
    """an id of the client's that fits the rule is the id of the request"""
    ids = [good_id(case, length) for length in (1, 12, 64)]
    responses = asked(attempt, *(("/async", given.encode()) for given in ids))
    for given, response in zip(ids, responses, strict=True):
        case.equal(
            given=f"X-Request-ID: {given}",
            expected=[given],
            got=response.headers.get_list("x-request-id"),
        )
    (response,) = talk(
        attempt(service(), header="X-Trace"), ("/async", {"x-trace": "T1", "x-request-id": "R1"})
    )
    case.equal(
        given="header='X-Trace', and a request with x-trace: T1 and x-request-id: R1",
        expected="T1",
        got=response.headers.get("x-trace"),
    )


@exercise.check(Stage.SHAPE, hint="new-each-time")
def new_ids_differ(attempt, case):
    """requests without an id get different ones"""
    app = attempt(service())
    ids = [r.headers.get("x-request-id") for r in talk(app, *[("/async", {})] * 20)]
    case.equal(given="20 requests without an id: how many ids", expected=20, got=len(set(ids)))


@exercise.check(Stage.RANGE, hint="rule")
def bad_ids_are_replaced(attempt, case):
    """an id that is empty, too long, or of other characters is replaced by a new one"""
    good = good_id(case)
    bad_ids = (
        b"",
        b"a" * 65,
        f"{good}] Prediction: 0.01 [b".encode(),
        f"{good}\nforged".encode(),
        f"{good}\n".encode(),
        f"{good}é".encode("latin-1"),
        f"{good}²".encode("latin-1"),
        b"\xff\xfe",
    )
    responses = asked(attempt, *(("/async", bad) for bad in bad_ids))
    for bad, response in zip(bad_ids, responses, strict=True):
        got = response.headers.get("x-request-id", "")
        case.true(
            re.fullmatch("[A-Za-z0-9_-]{1,64}", got) and got != good,
            given=f"X-Request-ID: {bad!r}",
            expected="a new id of 1 to 64 letters, digits, - or _",
            got=got,
        )


@exercise.check(Stage.VALUE, hint="current")
def those_who_serve_it_see_it(attempt, case):
    """current() is the id on the answer, in a coroutine and in a worker thread"""
    requests = [(path, i) for path in ("/async", "/sync") for i in (good_id(case).encode(), None)]
    for (path, value), response in zip(requests, asked(attempt, *requests), strict=True):
        case.equal(
            given=f"GET {path}, {'an id of its own' if value else 'no id'}: current() inside",
            expected=response.headers.get("x-request-id"),
            got=response.json(),
        )


@exercise.check(Stage.VALUE, hint="every-answer")
def every_answer_carries_it_once(attempt, case):
    """200, 404, 422 and an unhandled 500 carry it, once"""
    ids = {path: good_id(case) for path in ("/async", "/nowhere", "/number/x", "/bug")}
    responses = asked(attempt, *((path, given.encode()) for path, given in ids.items()))
    for (path, given), response in zip(ids.items(), responses, strict=True):
        case.equal(
            given=f"GET {path}, X-Request-ID: {given}, answered with {response.status_code}",
            expected=[given],
            got=response.headers.get_list("x-request-id"),
        )


@exercise.check(Stage.VALUE, hint="reset")
def afterwards_there_is_none(attempt, case):
    """after the request current() is "" again, also when the application raised"""

    async def run(fails):
        async def app(scope, receive, send):
            if fails:
                raise RuntimeError("a bug")

        async def send(message):
            return None

        with contextlib.suppress(RuntimeError):
            await attempt(app)({"type": "http", "headers": []}, None, send)
        return attempt.current()

    for fails in (False, True):
        case.equal(
            given=f"current() after a request whose application {'raised' if fails else 'ended'}",
            expected="",
            got=asyncio.run(run(fails)),
        )


@exercise.check(Stage.VALUE, hint="same-message")
def the_applications_message_stays_its_own(attempt, case):
    """a message that the application sends again and again does not grow"""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    given = [good_id(case) for _ in range(3)]
    responses = talk(attempt(app), *[("/", {"X-Request-ID": value}) for value in given])
    got = [response.headers.get_list("x-request-id") for response in responses]
    case.equal(
        given="three requests to an application that sends one constant message: ids on each",
        expected=[[value] for value in given],
        got=got,
    )


@exercise.check(Stage.STRESS, hint="mixed-up")
def requests_at_once_keep_their_own(attempt, case):
    """fifty requests under way at the same time each keep their own id"""
    callers = 50
    together = asyncio.Barrier(callers)

    async def app(scope, receive, send):
        await together.wait()
        body = attempt.current().encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    given = [f"{good_id(case, 8)}-{number}" for number in range(callers)]
    requests = [("/", {"X-Request-ID": value}) for value in given]
    responses = talk(attempt(app), *requests, at_once=True)
    wrong = sum(r.text != value for r, value in zip(responses, given, strict=True))
    case.equal(
        given=f"{callers} requests that all wait for each other: how many read another's id",
        expected=0,
        got=wrong,
    )


@exercise.solution
class RequestIdMiddleware:
    _id = ContextVar("request_id", default="")
    _fits = re.compile(rb"[A-Za-z0-9_-]{1,64}").fullmatch

    def __init__(self, app, header="x-request-id"):
        self.app = app
        self.header = header.lower().encode()

    @staticmethod
    def current():
        return RequestIdMiddleware._id.get()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(self.header, b"")
        request_id = given if self._fits(given) else uuid.uuid4().hex.encode()

        async def send_with_id(message):
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (self.header, request_id)]
                message = {**message, "headers": headers}
            await send(message)

        token = self._id.set(request_id.decode())
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._id.reset(token)


_scope_now = ContextVar("scope_now", default=None)


@exercise.another_way
class KeptInTheScope:
    """The id lives in the request's scope; the context says which scope is being served."""

    allowed = frozenset(GOOD)

    def __init__(self, app, header="x-request-id"):
        self.app, self.header = app, header.lower()

    @staticmethod
    def current():
        scope = _scope_now.get()
        return scope["request_id"] if scope else ""

    def chosen(self, scope):
        for name, value in scope["headers"]:
            text = value.decode("latin-1")
            if name.decode("latin-1") == self.header and 0 < len(text) <= 64:
                return text if self.allowed.issuperset(text) else str(uuid.uuid4())
        return str(uuid.uuid4())

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope = scope | {"request_id": self.chosen(scope)}
            send = functools.partial(self.answer, scope["request_id"], send)
            token = _scope_now.set(scope)
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                _scope_now.reset(token)

    async def answer(self, request_id, send, message):
        if message["type"] == "http.response.start":
            pair = (self.header.encode(), request_id.encode())
            message = message | {"headers": [*message.get("headers", []), pair]}
        await send(message)


@exercise.wrong("every-answer")
class ReceivedPattern(RequestIdMiddleware):
    """The received answer: inside the application, with the header set after call_next."""

    def __init__(self, app, header="x-request-id"):
        super().__init__(app, header)
        self.inside = isinstance(app, FastAPI)
        if self.inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=self.dispatch)

    async def dispatch(self, request, call_next):
        name = self.header.decode()
        given = request.headers.get(name, "").encode("latin-1")
        request_id = given.decode() if self._fits(given) else uuid.uuid4().hex
        self._id.set(request_id)
        response = await call_next(request)
        response.headers[name] = request_id
        return response

    async def __call__(self, scope, receive, send):
        if self.inside:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@exercise.wrong("rule")
class TakesAnything(RequestIdMiddleware):
    """Takes the client's text over as it is, 60,000 characters and forged fields included."""

    _fits = re.compile(rb"(?s).+").fullmatch


@exercise.wrong("rule")
class MatchesWithADollar(RequestIdMiddleware):
    """`$` lets a final line feed through."""

    _fits = re.compile(rb"^[A-Za-z0-9_-]{1,64}$").match


class _Global:
    def __init__(self):
        self.value = ""

    def get(self):
        return self.value

    def set(self, value):
        before, self.value = self.value, value
        return before

    def reset(self, token):
        self.value = ""


class _PerThread(threading.local, _Global):
    pass


def kept_in(variable):
    """The solution, with its id kept elsewhere."""

    class Kept(RequestIdMiddleware):
        _id = variable

        @staticmethod
        def current():
            return variable.get()

    return Kept


@exercise.wrong("mixed-up")
class ModuleGlobal(kept_in(_Global())):
    """One id for the process: nearly every request logs another customer's."""


@exercise.wrong("current")
class ThreadLocal(kept_in(_PerThread())):
    """Thread-local storage: empty in the worker thread, shared by all coroutines."""


@exercise.wrong("new-each-time")
class MadeOnce(RequestIdMiddleware):
    """The new id is made when the class is defined, as a default value is."""

    new = uuid.uuid4().hex.encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and not self._fits(dict(scope["headers"]).get(self.header, b"")):
            others = [pair for pair in scope["headers"] if pair[0] != self.header]
            scope = {**scope, "headers": [*others, (self.header, self.new)]}
        await super().__call__(scope, receive, send)


@exercise.wrong("take-over")
class AlwaysNew(RequestIdMiddleware):
    """Ignores the client's id, so the caller's log cannot be joined with ours."""

    @staticmethod
    def _fits(value):
        return False


@exercise.wrong("take-over")
class OneName(RequestIdMiddleware):
    """Compares with the header's name as it was written; ASGI's names are lower case."""

    def __init__(self, app, header="x-request-id"):
        super().__init__(app, header)
        self.header = header.encode()


@exercise.wrong("answer")
class ToldToNobody(RequestIdMiddleware):
    """Keeps the id to itself: the client has nothing to report."""

    async def __call__(self, scope, receive, send):
        async def without(message):
            headers = [p for p in message.get("headers", ()) if p[0] != self.header]
            await send({**message, "headers": headers} if "headers" in message else message)

        await super().__call__(scope, receive, without if scope["type"] == "http" else send)


@exercise.wrong("pass-through")
class OnlyRequests(RequestIdMiddleware):
    """A websocket's headers are read and its messages wrapped; lifespan has no headers at all."""

    async def __call__(self, scope, receive, send):
        await super().__call__({**scope, "type": "http"}, receive, send)


@exercise.wrong("reset")
class NeverReset(RequestIdMiddleware):
    """The id stays behind for whatever runs next in the same context."""

    async def __call__(self, scope, receive, send):
        seen = []

        async def noting(*args):
            seen.append(self._id.get())
            await self.app(*args)

        inner = RequestIdMiddleware(noting, self.header.decode())
        try:
            await inner(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self._id.set(seen[0])


@exercise.wrong("same-message")
class AppendsToTheMessage(RequestIdMiddleware):
    """Appends to the list of headers that the application sent."""

    async def __call__(self, scope, receive, send):
        own = {}

        async def put_into_place(message):
            if message["type"] == "http.response.start":
                own["message"]["headers"].append(message["headers"][-1])
                message = own["message"]
            await send(message)

        async def noting(scope, receive, send):
            async def note(message):
                own.setdefault("message", message)
                await send(message)

            await self.app(scope, receive, note)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            await RequestIdMiddleware(noting, self.header.decode())(scope, receive, put_into_place)
