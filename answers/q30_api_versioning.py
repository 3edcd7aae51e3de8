"""Q30 · API versioning: the exercise, its checks, and the mistakes they catch."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

from companion.instruments.virtual_time import run_in_virtual_time
from companion.serving.versions import DeprecatedVersion
from companion.study import Exercise, Stage

exercise = Exercise(
    "SunsetMiddleware",
    hints={
        "start": (
            "Begin with middleware that does nothing: `await self.app(scope, receive, send)`.",
            "Then hand the application a `send` of your own. The headers are in the message whose "
            'type is "http.response.start", as a list of (name, value) in lower-case bytes.',
            "Three guards come first: is it HTTP, is it under the prefix, is the date past? Only "
            "what is left gets the wrapped send.",
        ),
        "pass-through": (
            "What the application answers is not yours: status, headers and body stay as they are.",
            "Add to message['headers'] and pass every message on, also those that are no "
            "http.response.start.",
        ),
        "formats": (
            "Two headers, two formats for a moment, and neither of them is str(datetime).",
            "RFC 9745: `@` and whole seconds since 1970. RFC 8594: an HTTP date, always in GMT.",
            "f'@{int(moment.timestamp())}' and email.utils.format_datetime("
            "moment.astimezone(UTC), usegmt=True).",
        ),
        "link": (
            "A header that says where to go next, and what that place is to this one.",
            'link: <ADDRESS>; rel="successor-version"',
        ),
        "every-answer": (
            "Which answers does a forgotten client get? Not only the 200.",
            "Look at the path, not at the status: 404, 422 and 500 below it are marked too.",
        ),
        "prefix": (
            "/v10 begins with /v1, and is another version.",
            'The path equals the prefix, or begins with the prefix and a slash: f"{prefix}/".',
        ),
        "gone": (
            "The date in the header is a promise. What happens on that day?",
            "When clock() >= sunset_at answer 410 yourself, with the same headers, and do not call "
            "the application.",
        ),
        "clock": (
            "When is `now`? Not when the server started, and not what the machine says if somebody "
            "handed you a clock.",
            "Call self.clock() for each request.",
        ),
        "time-zone": (
            "A moment without a time zone means another moment on another machine.",
            "Raise ValueError in __init__ when tzinfo is None, for either of the two.",
        ),
        "order": (
            "Can something end before it is deprecated?",
            "Raise ValueError in __init__ when sunset_at < deprecated_at.",
        ),
        "other-scopes": (
            "An application is called for its lifespan and for websockets too.",
            'Unless scope["type"] == "http", call the application with the very same arguments.',
        ),
    },
)

DEPRECATED = datetime(2026, 6, 1, tzinfo=UTC)
SUNSET = datetime(2027, 6, 1, tzinfo=UTC)


def answering(status=200, body=b"{}", headers=()):
    """An application that always answers so, and notes the paths that it was asked for."""

    async def app(scope, receive, send):
        app.asked.append(scope["path"])
        start = {"type": "http.response.start", "status": status, "headers": list(headers)}
        await send(start)
        half = len(body) // 2
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": body[half:]})

    app.asked = []
    return app


def request_for(path):
    """A whole scope for GET `path`, as a server makes it."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "server": ("127.0.0.1", 8000),
    }


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


class Answer:
    """What a client gets: status, headers (the last of each name) and body."""

    def __init__(self, messages):
        self.status = messages[0]["status"]
        self.pairs = [(n.decode().lower(), v.decode()) for n, v in messages[0]["headers"]]
        self.headers = dict(self.pairs)
        self.body = b"".join(m.get("body", b"") for m in messages[1:])

    def __repr__(self):
        return f"an answer with status {self.status}"


def ask(attempt, path="/v1/predict", *, app=None, now=DEPRECATED, **settings):
    """The answer of `app` behind the attempt."""
    fixed = {"deprecated_at": DEPRECATED, "sunset_at": SUNSET, "successor": "/v2/predict"}
    middleware = attempt(app or answering(), "/v1", **fixed | settings, clock=lambda: now)
    messages = []

    async def send(message):
        messages.append(message)

    run_in_virtual_time(middleware(request_for(path), receive, send))
    return Answer(messages)


@exercise.check(Stage.TYPE, hint="pass-through")
def answers_come_through(attempt, case):
    """status, headers and body of the application come through"""
    body = bytes(case.rng.integers(97, 122, 40).tolist())
    app = answering(201, body, [(b"content-type", b"text/plain"), (b"x-kept", b"yes")])
    got = ask(attempt, app=app)
    case.equal(
        given="an application that answers 201 with a body in two parts and a header x-kept",
        expected=(201, body, "yes"),
        got=(got.status, got.body, got.headers.get("x-kept")),
    )


@exercise.check(Stage.SHAPE, hint="formats")
def the_headers_are_there(attempt, case):
    """an answer under the prefix has the headers deprecation and sunset"""
    names = [name for name, _ in ask(attempt).pairs]
    case.equal(
        given="GET /v1/predict",
        expected=["deprecation", "sunset"],
        got=[name for name in ("deprecation", "sunset") if name in names],
    )


@exercise.check(Stage.VALUE, hint="formats")
def the_formats_are_those_of_the_standards(attempt, case):
    """deprecation is @ and Unix seconds, sunset an HTTP date in GMT"""
    zone = timezone(timedelta(hours=int(case.rng.integers(1, 12))))
    begin = DEPRECATED + timedelta(seconds=int(case.rng.integers(10**6)))
    end = SUNSET + timedelta(seconds=int(case.rng.integers(10**6)))
    got = ask(attempt, deprecated_at=begin.astimezone(zone), sunset_at=end.astimezone(zone))
    given = f"deprecated at {begin.astimezone(zone)}, sunset at {end.astimezone(zone)}"
    case.equal(
        given=f"{given}: deprecation",
        expected=f"@{int(begin.timestamp())}",
        got=got.headers["deprecation"],
    )
    case.equal(
        given=f"{given}: sunset",
        expected=format_datetime(end, usegmt=True),
        got=got.headers["sunset"],
    )


@exercise.check(Stage.VALUE, hint="link")
def the_link_names_the_successor(attempt, case):
    """link names the successor with its relation"""
    successor = f"/v2/predict-{case.rng.integers(1000)}"
    got = ask(attempt, successor=successor).headers.get("link", "")
    case.true(
        re.search(rf'<{successor}>\s*;\s*rel="?successor-version"?', got),
        given=f"successor={successor!r}: link",
        expected=f'<{successor}>; rel="successor-version"',
        got=got,
    )


@exercise.check(Stage.VALUE, hint="every-answer")
def every_answer_is_marked(attempt, case):
    """404, 422 and 500 are marked like a 200"""
    for status in (200, 404, 422, 500):
        got = ask(attempt, app=answering(status))
        case.equal(
            given=f"the application answers {status}: (status, deprecation)",
            expected=(status, f"@{int(DEPRECATED.timestamp())}"),
            got=(got.status, got.headers.get("deprecation")),
        )


@exercise.check(Stage.VALUE, hint="prefix")
def neighbours_are_untouched(attempt, case):
    """/v1 and what is below it is marked, and no neighbour"""
    paths = ["/v10/predict", "/v1beta", "/v2/predict", "/", "/x/v1/predict"]
    marked = ["/v1", "/v1/", "/v1/predict/batch"]
    for now, given in ((DEPRECATED, "before"), (SUNSET, "after")):
        got = [path for path in paths if ask(attempt, path, now=now).pairs]
        case.equal(given=f"{', '.join(paths)} {given} the sunset: marked", expected=[], got=got)
    got = [path for path in marked if "sunset" in ask(attempt, path).headers]
    case.equal(given=f"{', '.join(marked)}: marked", expected=marked, got=got)


@exercise.check(Stage.VALUE, hint="gone")
def after_the_date_it_is_gone(attempt, case):
    """from sunset_at on it answers 410, marked, and the application is not asked"""
    for late in (timedelta(0), timedelta(days=int(case.rng.integers(1, 999)))):
        app = answering()
        got = ask(attempt, app=app, now=SUNSET + late)
        case.equal(
            given=f"{late} after sunset_at: (status, requests that reached the application)",
            expected=(410, 0),
            got=(got.status, len(app.asked)),
        )
        case.true(
            "sunset" in got.headers and parsedate_to_datetime(got.headers["sunset"]) == SUNSET,
            given="the 410",
            expected="a sunset header",
            got=got.headers,
        )
    got = ask(attempt, now=SUNSET - timedelta(seconds=1))
    case.equal(given="one second before sunset_at: status", expected=200, got=got.status)


@exercise.check(Stage.VALUE, hint="time-zone")
def moments_have_a_time_zone(attempt, case):
    """a moment without a time zone is refused"""
    for name, moment in (("deprecated_at", DEPRECATED), ("sunset_at", SUNSET)):
        naive = moment.replace(tzinfo=None)
        case.raises(
            ValueError,
            lambda name=name, naive=naive: ask(attempt, **{name: naive}),
            given=f"{name}={naive!r}",
        )


@exercise.check(Stage.VALUE, hint="order")
def the_end_comes_after_the_beginning(attempt, case):
    """a sunset before the deprecation is refused, one at the same moment is not"""
    early = DEPRECATED - timedelta(days=int(case.rng.integers(1, 99)))
    given = f"deprecated at {DEPRECATED}, sunset at {early}"
    case.raises(ValueError, lambda: ask(attempt, sunset_at=early), given=given)
    ask(attempt, sunset_at=DEPRECATED)


@exercise.check(Stage.STRESS, hint="clock")
def the_clock_is_read_for_each_request(attempt, case):
    """a server that runs across the date answers 200 before it and 410 after"""
    times = iter([SUNSET - timedelta(days=1), SUNSET, SUNSET + timedelta(days=1)])
    now = {"is": next(times)}
    middleware = attempt(
        answering(),
        "/v1",
        deprecated_at=DEPRECATED,
        sunset_at=SUNSET,
        successor="/v2",
        clock=lambda: now["is"],
    )
    seen = []

    async def send(message):
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    async def run():
        await middleware(request_for("/v1/x"), receive, send)
        for now["is"] in times:
            await middleware(request_for("/v1/x"), receive, send)

    run_in_virtual_time(run())
    case.equal(given="a day before, at, and after sunset_at", expected=[200, 410, 410], got=seen)


@exercise.check(Stage.STRESS, hint="other-scopes")
def other_scopes_pass_untouched(attempt, case):
    """lifespan and websockets reach the application with the very same arguments"""
    for kind in ("lifespan", "websocket"):
        seen = []

        async def app(*arguments, seen=seen):
            seen.extend(arguments)

        middleware = attempt(
            app,
            "/v1",
            deprecated_at=DEPRECATED,
            sunset_at=SUNSET,
            successor="/v2",
            clock=lambda: SUNSET,
        )
        scope = {"type": kind} if kind == "lifespan" else {"type": kind, "path": "/v1/stream"}
        given = [scope, object(), object()]
        run_in_virtual_time(middleware(*given))
        case.true(
            len(seen) == 3 and all(a is b for a, b in zip(seen, given, strict=True)),
            given=f"a scope of type {kind!r}",
            expected="the application is called with the same three arguments",
            got=seen,
        )


@exercise.solution
class SunsetMiddleware:
    def __init__(
        self,
        app,
        prefix,
        *,
        deprecated_at,
        sunset_at,
        successor,
        clock=lambda: datetime.now(UTC),
    ):
        if deprecated_at.tzinfo is None or sunset_at.tzinfo is None:
            raise ValueError("deprecated_at and sunset_at need a time zone")
        if sunset_at < deprecated_at:
            raise ValueError("sunset_at is before deprecated_at")
        self.app, self.prefix, self.sunset_at, self.clock = app, prefix, sunset_at, clock
        self.marks = [
            (b"deprecation", f"@{int(deprecated_at.timestamp())}".encode()),
            (b"sunset", format_datetime(sunset_at.astimezone(UTC), usegmt=True).encode()),
            (b"link", f'<{successor}>; rel="successor-version"'.encode()),
        ]

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or not self.covers(scope["path"]):
            await self.app(scope, receive, send)
        elif self.clock() >= self.sunset_at:
            await send({"type": "http.response.start", "status": 410, "headers": self.marks})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, self.marked(send))

    def covers(self, path):
        return path == self.prefix or path.startswith(f"{self.prefix}/")

    def marked(self, send):
        async def send_marked(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.marks]}
            await send(message)

        return send_marked


@exercise.another_way
def middleware_of_functions(
    app, prefix, *, deprecated_at, sunset_at, successor, clock=lambda: datetime.now(UTC)
):
    """A different shape: a function that returns one, dates by strftime, and the path in parts."""
    for moment in (deprecated_at, sunset_at):
        if moment.utcoffset() is None:
            raise ValueError(f"{moment} has no time zone")
    if (sunset_at - deprecated_at) < timedelta(0):
        raise ValueError("it would end before it begins to")
    gmt = sunset_at.astimezone(UTC)
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][gmt.weekday()]
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    month = months[gmt.month - 1]
    date = f"{day}, {gmt.day:02} {month} {gmt.year} {gmt:%H:%M:%S} GMT"
    since = (deprecated_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    headers = {"deprecation": f"@{since}", "sunset": date}
    headers["link"] = f"<{successor}>; rel=successor-version"
    pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]

    async def gone(scope, receive, send):
        await send({"type": "http.response.start", "status": 410, "headers": []})
        await send({"type": "http.response.body"})

    async def middleware(scope, receive, send):
        if scope["type"] != "http" or scope["path"].split("/")[1] != prefix.strip("/"):
            return await app(scope, receive, send)

        async def outer(message):
            if "headers" in message:
                message["headers"] = list(message["headers"]) + pairs
            await send(message)

        return await (gone if sunset_at <= clock() else app)(scope, receive, outer)

    return middleware


@exercise.another_way
class FromTheCompanion(DeprecatedVersion):
    """The companion's own, which also wants to know where the guide is."""

    def __init__(self, app, prefix, **settings):
        super().__init__(app, prefix, guide="/guides/v2", **settings)


@exercise.wrong("formats")
class ReceivedPattern(SunsetMiddleware):
    """The received answer: a notice in the body of one address, and nothing in any header."""

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@exercise.wrong("pass-through")
class OwnResponse(SunsetMiddleware):
    """Replaces the application's headers instead of adding to them."""

    def marked(self, send):
        async def send_marked(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": self.marks}
            await send(message)

        return send_marked


class Remarked(SunsetMiddleware):
    """For mistakes in one header: `name` gets the value that `value` makes of the settings."""

    name, value = b"", staticmethod(lambda settings: "")

    def __init__(self, app, prefix, **settings):
        super().__init__(app, prefix, **settings)
        kept = [mark for mark in self.marks if mark[0] != self.name]
        self.marks = [*kept, (self.name, self.value(settings).encode())]


@exercise.wrong("formats")
class DeprecationTrue(Remarked):
    """`Deprecation: true`, as the drafts before RFC 9745 had it."""

    name, value = b"deprecation", staticmethod(lambda settings: "true")


@exercise.wrong("formats")
class DeprecationAsDate(Remarked):
    """An HTTP date in Deprecation, the other form of the drafts."""

    name = b"deprecation"
    value = staticmethod(lambda s: format_datetime(s["deprecated_at"].astimezone(UTC), usegmt=True))


@exercise.wrong("formats")
class SunsetAsText(Remarked):
    """str(datetime) is no HTTP date."""

    name, value = b"sunset", staticmethod(lambda settings: str(settings["sunset_at"]))


@exercise.wrong("formats")
class LocalTimeAsGmt(Remarked):
    """Writes the local hour and GMT behind it."""

    name = b"sunset"
    value = staticmethod(lambda s: s["sunset_at"].strftime("%a, %d %b %Y %H:%M:%S GMT"))


@exercise.wrong("link")
class LinkWithoutRelation(Remarked):
    """A link that does not say what it links to."""

    name, value = b"link", staticmethod(lambda settings: f"<{settings['successor']}>")


@exercise.wrong("every-answer")
class OnlySuccesses(SunsetMiddleware):
    """As a dependency of the routes would: the answers to errors lack the headers."""

    def marked(self, send):
        mark = super().marked(send)

        async def send_marked(message):
            good = message.get("status", 500) < 400
            await (mark if good else send)(message)

        return send_marked


@exercise.wrong("prefix")
class StartsWith(SunsetMiddleware):
    """path.startswith("/v1"): /v10 and /v1beta are marked too."""

    def covers(self, path):
        return path.startswith(self.prefix)


@exercise.wrong("prefix")
class OnlyBelow(SunsetMiddleware):
    """Forgets the prefix itself."""

    def covers(self, path):
        return path.startswith(f"{self.prefix}/")


@exercise.wrong("gone")
class NeverGone(SunsetMiddleware):
    """The date in the header passes, and nothing happens."""

    def __init__(self, app, prefix, *, clock=None, **settings):
        super().__init__(app, prefix, clock=lambda: DEPRECATED, **settings)


@exercise.wrong("gone")
class GoneWithoutNotice(SunsetMiddleware):
    """A bare 410: the client that comes back after a year learns nothing from it."""

    async def __call__(self, scope, receive, send):
        marks, late = self.marks, self.clock() >= self.sunset_at
        self.marks = [] if late else marks
        await super().__call__(scope, receive, send)
        self.marks = marks


@exercise.wrong("gone")
class GoneTooLate(SunsetMiddleware):
    """`>` instead of `>=`: at the moment itself it still answers."""

    async def __call__(self, scope, receive, send):
        now = self.clock()
        self.clock, clock = (lambda: DEPRECATED if now == self.sunset_at else now), self.clock
        await super().__call__(scope, receive, send)
        self.clock = clock


@exercise.wrong("clock")
class DecidesAtStart(SunsetMiddleware):
    """Looks at the clock once, when the server starts, and servers run for months."""

    def __init__(self, app, prefix, *, clock, **settings):
        now = clock()
        super().__init__(app, prefix, clock=lambda: now, **settings)


@exercise.wrong("time-zone")
class AssumesUtc(SunsetMiddleware):
    """Takes a moment without a time zone for UTC. Whoever wrote it thought of local time."""

    def __init__(self, app, prefix, *, deprecated_at, sunset_at, **settings):
        moments = {
            "deprecated_at": deprecated_at.replace(tzinfo=deprecated_at.tzinfo or UTC),
            "sunset_at": sunset_at.replace(tzinfo=sunset_at.tzinfo or UTC),
        }
        super().__init__(app, prefix, **moments, **settings)


@exercise.wrong("order")
class SwapsThem(SunsetMiddleware):
    """Puts the two in order silently, and so promises a date that nobody chose."""

    def __init__(self, app, prefix, *, deprecated_at, sunset_at, **settings):
        if deprecated_at.tzinfo and sunset_at.tzinfo and sunset_at < deprecated_at:
            deprecated_at, sunset_at = sunset_at, deprecated_at
        super().__init__(app, prefix, deprecated_at=deprecated_at, sunset_at=sunset_at, **settings)


@exercise.wrong("other-scopes")
class EverythingIsHttp(SunsetMiddleware):
    """Asks any scope for its path: the lifespan has none, and the server does not start."""

    async def __call__(self, scope, receive, send):
        await super().__call__({**scope, "type": "http", "path": scope["path"]}, receive, send)
