"""Where the time of a request went, told in its own answer.

`Server-Timing` (W3C Server Timing) is a response header of named durations that browsers show in
their network panel and any client can read: `features;dur=1.2, model;dur=0.4, total;dur=1.9`,
milliseconds. `ServerTiming` opens a record for each request, `span(name)` adds to it wherever the
code runs: in a coroutine, in the thread of a sync endpoint, below `asyncio.gather`.

What it cannot see is the time before the application is called: a request that waits in a socket
behind a blocked event loop is slow for its client and quick in this header. Measure there too.
"""

import re
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Clock = Callable[[], float]

_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110
_TOTAL = "total"


class _Record:
    """The finished spans of one request; threads share it, appending to a list is atomic."""

    __slots__ = ("clock", "spans")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spans: list[tuple[str, float]] = []


_record: ContextVar[_Record | None] = ContextVar("companion_server_timing", default=None)


class span:  # noqa: N801 - it is used as a function is
    """`with span("model"): …` adds the duration of the block to the current request's record.

    Also when the block raises, and across `await`. Spans nest, and each counts its whole duration;
    several of one name are added up. Outside of a request that is recorded nothing happens.

    Raises:
        ValueError: `name` is no token (letters, digits and a few signs), or is `total`.
    """

    __slots__ = ("_begun", "_name", "_record")

    def __init__(self, name: str) -> None:
        if not _is_token(name) or name == _TOTAL:
            raise ValueError(f"{name!r} cannot be the name of a span in Server-Timing")
        self._name = name
        self._record: _Record | None = None
        self._begun = 0.0

    def __enter__(self) -> None:
        record = self._record = _record.get()
        if record is not None:
            self._begun = record.clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        record = self._record
        if record is not None:
            record.spans.append((self._name, record.clock() - self._begun))


class ServerTiming:
    """ASGI middleware: puts the spans that ended before the answer began, and `total`, on it.

    `total` runs from the moment when this middleware is called until the answer begins, so put it
    as far out as you want to measure. `clock` gives monotonic seconds.

    Durations tell a stranger something about what you compute; leave the header off, or have the
    proxy remove it, where strangers ask.
    """

    def __init__(self, app: ASGIApp, *, clock: Clock = time.perf_counter) -> None:
        self.app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        clock = self._clock
        begun = clock()
        record = _Record(clock)

        # Not a coroutine function: that would cost one coroutine more for each message.
        def send_with_timing(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                value = _rendered(record.spans, clock() - begun)
                # A new message: the application may send the same object again.
                headers = [*message.get("headers", ()), (b"server-timing", value)]
                message = {**message, "headers": headers}
            return send(message)

        token = _record.set(record)
        try:
            await self.app(scope, receive, send_with_timing)
        finally:
            _record.reset(token)


def _rendered(spans: list[tuple[str, float]], total: float) -> bytes:
    sums: dict[str, float] = {}
    for name, seconds in spans:
        sums[name] = sums.get(name, 0.0) + seconds
    sums[_TOTAL] = total
    return ", ".join([f"{name};dur={s * 1e3:.3f}" for name, s in sums.items()]).encode()
