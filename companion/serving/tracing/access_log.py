"""One line for each request, written beside the request instead of inside it.

A log call formats and writes while the client waits: tens of microseconds, and more when the
reader of the pipe is slow. Here the request only puts a tuple into a bounded buffer, and a thread
writes what has gathered, many lines by one call, a few times a second; several processes may share
the pipe, since no call is longer than what a pipe takes whole. The price: a process that is killed
loses the last fraction of a second, and while the buffer is full new lines are lost, which the next
write counts aloud.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.serving.tracing.request_id import current_request_id

_LOG = logging.getLogger(__name__)
_WHOLE = 4096
"""ASCII characters that Linux puts into a pipe whole, whoever else writes to it (PIPE_BUF)."""


class Served(NamedTuple):
    """One request. `at` is Unix time when it began, `seconds` until its answer was sent.

    `status` is None where the client went away, or the application failed, before an answer began.
    """

    at: float
    method: str
    path: str
    status: int | None
    seconds: float
    request_id: str
    trace_id: str


class AccessLog:
    """ASGI middleware: tells `note` what came of each HTTP request, whatever came of it.

    Put it directly inside `RequestId`. The path is told without its query, where secrets travel.
    `clock` gives monotonic seconds, `now` Unix time.
    """

    def __init__(
        self,
        app: ASGIApp,
        note: Callable[[Served], None],
        *,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._note = note
        self._clock = clock
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        at, begun = self._now(), self._clock()
        status: int | None = None
        trace_id = ""

        def watched_send(message: Message) -> Awaitable[None]:
            nonlocal status, trace_id
            if message["type"] == "http.response.start":
                status = message["status"]
                context = trace.get_current_span().get_span_context()
                if context.is_valid:
                    trace_id = trace.format_trace_id(context.trace_id)
            return send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            seconds = self._clock() - begun
            method, path = scope["method"], scope["path"]
            self._note(Served(at, method, path, status, seconds, current_request_id(), trace_id))


class AccessLines:
    """Writes what it is told to `stream`, one JSON object a line, from a thread of its own.

        with AccessLines(sys.stdout) as note:
            application = RequestId(AccessLog(app, note))

    Leaving the block writes the rest. At most `capacity` requests wait for the next write, which
    comes every `every` seconds. What does not fit, or meets a stream that fails, is counted and the
    number said in a line of its own.

    Raises:
        ValueError: a capacity or an interval that is not positive.
    """

    def __init__(self, stream: TextIO, *, capacity: int = 50_000, every: float = 0.25) -> None:
        if capacity < 1 or not every > 0:
            raise ValueError(f"capacity and every must be positive, got {capacity} and {every}")
        self._stream = stream
        self._capacity = capacity
        self._every = every
        self._waiting: deque[Served] = deque()
        self._lost = 0  # by the event loop's thread, and only counted up
        self._told_lost = 0
        self._write_lock = threading.Lock()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)

    def __call__(self, served: Served) -> None:
        """Keep `served` for the next write, without waiting. Call it from one thread only."""
        if len(self._waiting) >= self._capacity:
            self._lost += 1
        else:
            self._waiting.append(served)

    def write(self) -> None:
        """Write what waits, in as few calls of the stream as keep lines whole.

        Raises what the stream raises; the lines of the call that failed count as lost.
        """
        with self._write_lock:
            for lines in self._fitting():
                try:
                    self._put("".join(lines))
                except BaseException:
                    self._told_lost -= len(lines)  # to be said later
                    raise
            if lost := self._lost - self._told_lost:
                told = {"level": "WARNING", "logger": "access", "lost": lost}
                self._put(json.dumps(told) + "\n")
                self._told_lost += lost

    def _fitting(self) -> Iterator[list[str]]:
        """What waits now, as lines that one call may write.

        They are made between the calls, not all at first: a call lets go of Python's lock, so the
        event loop never waits for more than a few lines to be made.
        """
        lines: list[str] = []
        size = 0
        for _ in range(len(self._waiting)):
            line = _line(self._waiting[0])
            if lines and size + len(line) > _WHOLE:
                yield lines
                lines, size = [], 0
            self._waiting.popleft()
            lines.append(line)
            size += len(line)
        if lines:
            yield lines

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()
        self.write()

    def _work(self) -> None:
        while not self._leaving.wait(self._every):
            try:
                self.write()
            except (OSError, ValueError) as failure:  # the disk is full, the stream is closed
                _LOG.error("access lines cannot be written: %s", failure)


def _line(served: Served) -> str:
    time = datetime.fromtimestamp(served.at, UTC).isoformat(timespec="milliseconds")
    told: dict[str, object] = {
        "time": time.replace("+00:00", "Z"),
        "level": "INFO",
        "logger": "access",
        "method": served.method,
        "path": served.path,
        "status": served.status,
        "duration_ms": round(served.seconds * 1e3, 3),
        "request_id": served.request_id,
    }
    if served.trace_id:
        told["trace_id"] = served.trace_id
    return json.dumps(told).replace("\x7f", "\\u007f") + "\n"
