"""uvicorn's HTTP protocol with limits on what comes before a request, and one write an answer.

An application is called when all headers are there. A client that sends a byte of them now and
then holds a connection for ever without any application knowing (*Slowloris*, Hansen, 2009), and
one that sends headers without end fills the memory. Both are stopped here, where bytes arrive.

`uvicorn --http companion.serving.wire:GuardedProtocol`, or `Config(http=guarded(seconds=…))`. The
timer runs only while a client makes us wait, so a request whose headers come at once pays nothing.

An answer is handed over in two messages, head and body, and uvicorn writes each at once. For a
small answer a second call of the system is a good part of the whole; here the head waits for what
follows in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0


class HeadWithBody:
    """A transport whose `write` keeps the head of an answer back for what follows in this turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send `data`, in order; the head of an answer at the end of this turn at the latest."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Send what was kept back, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """One connection; it is closed after 408 or 431 when its headers take too long or too much.

    `header_seconds` is the time for all headers of one request, from its first byte (of the first
    request: from the connection). `header_bytes` is how much of them may have come without their
    end; what comes in one piece may be a little more.
    """

    header_bytes = HEADER_BYTES
    header_seconds = HEADER_SECONDS

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._in_headers = True
        self._header_size = 0
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeadWithBody(transport, self.loop))  # type: ignore[arg-type]
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_headers or self.transport.is_closing():
            return
        self._header_size += len(data)
        if self._header_size > self.header_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._patience is None:
            self._wait()

    def on_message_begin(self) -> None:
        self._in_headers, self._header_size = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._patience is not None:
            self._stop_waiting()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(
            self.header_seconds, self._refuse, b"408 Request Timeout"
        )

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self, status: bytes) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()


def guarded(*, seconds: float = HEADER_SECONDS, size: int = HEADER_BYTES) -> type[GuardedProtocol]:
    """The protocol with other limits: `seconds` and `size` (bytes) for all headers of a request.

    Raises `ValueError` for limits that let nothing through.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is positive and finite; got {seconds}")
    if size < 1:
        raise ValueError(f"size is 1 byte or more; got {size}")
    return type("Guarded", (GuardedProtocol,), {"header_seconds": seconds, "header_bytes": size})
