"""One id for each request: taken over or made, seen by all code that serves it, on every answer.

A correlation id joins what one request left in several places: the client's report, our log lines,
the logs of the services behind us. That works only if every answer carries it, above all the
unexpected 500, so `RequestId` stands around the *whole* application: inside the framework's own
error handling it would not see that answer. And it works only if the id can be believed in a log
line, so a client's id is taken over only in a small alphabet; everything else gets a new one.

The id lives in a context variable (PEP 567): each task has its own, `asyncio` and AnyIO's threads
copy it, a thread that you start yourself does not.
"""

import os
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from http import HTTPStatus

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"

_NOTE = "request id: "
_is_acceptable = re.compile(rb"[A-Za-z0-9_-]{1,64}").fullmatch
_is_header_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110, token
_request_id: ContextVar[str] = ContextVar("companion_request_id", default="")


def current_request_id() -> str:
    """The id of the request that is being served here, `""` outside of any."""
    return _request_id.get()


def request_id_of(error: BaseException) -> str:
    """The id of the request that `error` ended, `""` where `RequestId` did not see it pass."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    return notes[-1].removeprefix(_NOTE) if notes else ""


def new_request_id() -> str:
    """32 hexadecimal digits from the system's randomness, which a fork does not repeat."""
    return os.urandom(16).hex()


class RequestId:
    """ASGI middleware: gives each HTTP request its id and puts it on the answer.

    Put it outermost, around the application object (`RequestId(app)`), not `app.add_middleware`:
    what a framework adds stands inside its error handling.

    The id is the request's `header` where that matches `[A-Za-z0-9_-]{1,64}`, else `new_id()`. If
    `app` raises before it has begun to answer, the answer is a bare 500 that carries the id. The
    exception goes on to the server with the id as a note (PEP 678), since the server logs it when
    the request's context is gone. An id that `app` sends itself is replaced.

    Raises:
        ValueError: `header` cannot be the name of an HTTP header.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        header: str = HEADER,
        new_id: Callable[[], str] = new_request_id,
    ) -> None:
        if not _is_header_name(header):
            raise ValueError(f"{header!r} cannot be the name of a header")
        self.app = app
        self._header = header.lower().encode()
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        header = self._header
        given = b""
        for name, value in scope["headers"]:
            if name == header:
                given = value
                break
        request_id = given.decode() if _is_acceptable(given) else self._new_id()
        pair = (header, request_id.encode())
        has_begun = False

        # Not a coroutine function: that would cost one coroutine more for each message.
        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                # A new message: the application may send the same object again.
                others = [item for item in message.get("headers", ()) if item[0] != header]
                message = {**message, "headers": [*others, pair]}
            return send(message)

        token = _request_id.set(request_id)
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            error.add_note(f"{_NOTE}{request_id}")
            if not has_begun:
                await _answer_500(send, pair, request_id)
            raise
        finally:
            _request_id.reset(token)


def forward_request_id(request: httpx.Request) -> None:
    """Hook for `httpx.Client(event_hooks={"request": [forward_request_id]})`.

    Puts the current id on an outgoing request that has none of its own. Give the hook only to
    clients that talk to your own services.
    """
    if request_id := _request_id.get():
        request.headers.setdefault(HEADER, request_id)


async def aforward_request_id(request: httpx.Request) -> None:
    """`forward_request_id` for `httpx.AsyncClient`."""
    forward_request_id(request)


async def _answer_500(send: Send, pair: tuple[bytes, bytes], request_id: str) -> None:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    # The id cannot hold anything that JSON would have to escape.
    body = (
        f'{{"type":"about:blank","title":"{status.phrase}","status":{status.value},'
        f'"request_id":"{request_id}"}}'
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        pair,
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
