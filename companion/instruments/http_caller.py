"""A small HTTP client for load: keep-alive connections, ready-made requests, nothing else.

A load generator shares the machine with what it measures, so what it spends on a request comes off
the result. General clients build each request from parts and parse every header; this one writes
bytes made once and reads of the reply what framing needs (RFC 9112: status line, content length or
chunks). It speaks HTTP/1.1 without TLS to one address and follows nothing.

    async with HttpCaller("http://127.0.0.1:8000/predict", bodies=[body]) as caller:
        result = await aclosed_loop(caller, seconds=2, workers=16)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_NO_HEADERS: Mapping[str, str] = {}


class HttpStatusError(Exception):
    """The server answered, with a ``status`` of 400 or above; ``body`` is what it said."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return f"status {self.status}: {self.body[:200].decode(errors='replace')}"


class HttpCaller:
    """Sends one request per call and returns the body of the reply, over connections that it keeps.

    A call takes the connection that was used last and opens a new one where none is idle, so there
    are never more connections than calls under way. Call number ``i`` sends
    ``bodies[i % len(bodies)]`` by POST; without bodies it is a GET.

    Args:
        url: ``http://host[:port][/path][?query]``.
        bodies: JSON documents unless ``headers`` name another content type.
        headers: further headers, sent with every request.
        timeout: seconds for one call, connecting included.

    Raises:
        ValueError: the URL is of another kind, or ``timeout`` is not positive.
    """

    def __init__(
        self,
        url: str,
        *,
        bodies: Sequence[bytes] = (),
        headers: Mapping[str, str] = _NO_HEADERS,
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"load goes to http://host[:port]/path, not to {url!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        self._address = (parts.hostname, parts.port or 80)
        self._timeout = timeout
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        method = "POST" if bodies else "GET"
        head = {"host": parts.netloc}
        if bodies:
            head["content-type"] = "application/json"
        head |= {name.lower(): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        start = f"{method} {target} HTTP/1.1\r\n{lines}".encode("latin-1")
        self._requests = [
            start + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies
        ] or [start + b"\r\n"]
        self._idle: list[_Connection] = []

    async def __call__(self, number: int = 0) -> bytes:
        """Send request ``number`` and return the reply's body.

        Raises:
            HttpStatusError: the status is 400 or above.
            TimeoutError: no whole reply within ``timeout`` seconds.
            OSError: no connection, or it ended before its reply (``EOFError`` within a reply).
        """
        request = self._requests[number % len(self._requests)]
        async with asyncio.timeout(self._timeout):
            connection = self._still_open() or await self._open()
            try:
                status, body, keeps = await connection.exchange(request)
            except BaseException:
                # Half a reply may still be on its way: nobody else must read it.
                connection.close()
                raise
        if keeps:
            self._idle.append(connection)
        else:
            connection.close()
        if status >= 400:
            raise HttpStatusError(status, body)
        return body

    async def connect(self) -> None:
        """Open a connection beforehand, and so see whether anybody listens.

        Raises:
            TimeoutError: nobody answered within ``timeout`` seconds.
            OSError: no connection.
        """
        async with asyncio.timeout(self._timeout):
            self._idle.append(await self._open())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._idle:
            self._idle.pop().close()

    def _still_open(self) -> _Connection | None:
        """The idle connection that was used last, unless the server has closed it by now."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.was_closed:
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        return _Connection(*await asyncio.open_connection(*self._address))


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def exchange(self, request: bytes) -> tuple[int, bytes, bool]:
        """Send, and return status, body, and whether the connection can be used again."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        # HTTP/1.0 closes unless told otherwise, HTTP/1.1 the other way round.
        keeps = head.startswith(b"http/1.1") and b"\r\nconnection: close\r\n" not in head
        if b"\r\ntransfer-encoding: chunked\r\n" in head:
            return status, await self._chunks(), keeps
        if (length := _content_length(head)) is not None:
            return status, await self._reader.readexactly(length), keeps
        if status in (204, 304):
            return status, b"", keeps
        return status, await self._reader.read(), False

    async def _chunks(self) -> bytes:
        parts = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
        return b"".join(parts)

    @property
    def was_closed(self) -> bool:
        """Whether the other side has hung up; it may be about to, which nobody can see."""
        return self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()


def _content_length(head: bytes) -> int | None:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else None
