"""What a request may cost before anybody looks at it: bytes of body and headers, and time to send.

A server that reads whatever comes can be filled by one client (a body without end) or held by
many (a byte now and then, for hours: *Slowloris*, Hansen, 2009). So a body is counted on its way in
and refused at the first byte too many, whatever `Content-Length` promised; a body that promises too
much is refused before it is read; and a body has a time to arrive in, as a whole.

Headers have been read by the server when an application is called, so their limit here is the
second line; `companion.serving.wire` is the first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.serving.eager import begin
from companion.serving.problems import MEDIA_TYPE, problem

MEBIBYTE = 1 << 20


class RefusedRequestError(Exception):
    """The request asks for too much: `status` and `title` say of what."""

    status = 400
    title = "Bad Request"


class BodyTooLargeError(RefusedRequestError):
    """The body has, or promises, more than `limit` bytes."""

    status, title = 413, "Content Too Large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"a body may have {limit} bytes")
        self.limit = limit


class SlowBodyError(RefusedRequestError):
    """The body was not there within `seconds`."""

    status, title = 408, "Request Timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the body was not there within {seconds:g} s")
        self.seconds = seconds


class HeadersTooLargeError(RefusedRequestError):
    """The headers have more than `limit` bytes."""

    status, title = 431, "Request Header Fields Too Large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"all headers together may have {limit} bytes")
        self.limit = limit


class ClientLeftError(Exception):
    """The client went away before its request was whole; nobody waits for an answer."""


async def refuse(error: RefusedRequestError, send: Send) -> None:
    """Answer a request that asks for too much, and have the connection closed after it."""
    body = problem(error.status, error.title, str(error))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        # What is left of the body would be read as the next request.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Limits:
    """How much a request may bring: `body` and `headers` in bytes, `seconds` for the body.

    Raises `ValueError` for limits that let nothing through.
    """

    def __init__(
        self, *, body: int = MEBIBYTE, headers: int = 16 * 1024, seconds: float = 10.0
    ) -> None:
        if body < 1 or headers < 1:
            raise ValueError(f"limits are 1 byte or more; got {body=} and {headers=}")
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds is positive and finite; got {seconds}")
        self.body = body
        self.headers = headers
        self.seconds = seconds

    def check_headers(self, scope: Scope) -> None:
        """Raise `HeadersTooLargeError`, or `BodyTooLargeError` for what is only promised."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self.body:
                raise BodyTooLargeError(self.body)
        if size > self.headers:
            raise HeadersTooLargeError(self.headers)

    async def read(self, receive: Receive) -> bytes:
        """The whole body; raises `BodyTooLargeError`, `SlowBodyError` and `ClientLeftError`."""
        is_there, message = begin(receive())
        if is_there and message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self.body:
                raise BodyTooLargeError(self.body)
            return body
        try:
            async with asyncio.timeout(self.seconds):
                return await self._joined(message if is_there else await message, receive)
        except TimeoutError:
            raise SlowBodyError(self.seconds) from None

    async def _joined(self, message: Message, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            part = message.get("body", b"")
            size += len(part)
            if size > self.body:
                raise BodyTooLargeError(self.body)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()


class Guard:
    """ASGI middleware that keeps `limits` for an application that reads bodies in its own way.

    `larger` are path prefixes with limits of their own, such as those that take uploads. What is
    refused while the application reads is answered here, unless it has begun to answer itself.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, *, larger: dict[str, Limits] | None = None
    ) -> None:
        self.app = app
        self._limits = limits
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limits = self._limits_of(scope["path"])
        try:
            limits.check_headers(scope)
        except RefusedRequestError as error:
            await refuse(error, send)
            return
        counted = _Counted(receive, limits)
        has_begun = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            if counted.refusal is not None and not has_begun:
                return _swallowed()  # the application answers an error that was none of its own
            has_begun = True
            return send(message)

        try:
            await self.app(scope, counted.receive, watched)
        except RefusedRequestError:
            if counted.refusal is None:
                raise
        finally:
            if counted.refusal is not None and not has_begun:
                await refuse(counted.refusal, send)

    def _limits_of(self, path: str) -> Limits:
        for prefix, limits in self._larger.items():
            if path.startswith(prefix):
                return limits
        return self._limits


async def _swallowed() -> None:
    """In the place of a message that is not sent."""


class _Counted:
    """A `receive` that raises at the first byte, or the first second, too many."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self._is_whole = False
        self._ends: float | None = None
        self.refusal: RefusedRequestError | None = None

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()  # waiting for the client to leave takes as long as it may
        loop = asyncio.get_running_loop()
        if self._ends is None:
            self._ends = loop.time() + self._limits.seconds
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            self.refusal = SlowBodyError(self._limits.seconds)
            raise self.refusal from None
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._size > self._limits.body:
            self.refusal = BodyTooLargeError(self._limits.body)
            raise self.refusal
        return message
