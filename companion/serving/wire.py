"""uvicorn's HTTP protocol with limits on what comes before there is a request: size and time.

An application is called when all headers are there. A client that sends a byte of them now and
then holds a connection for ever without any application knowing (*Slowloris*, Hansen, 2009), and
one that sends headers without end fills the memory. Both are stopped here, where bytes arrive.

`uvicorn --http companion.serving.wire:GuardedProtocol`, or `Config(http=guarded(seconds=…))`. The
timer runs only while a client makes us wait, so a request whose headers come at once pays nothing.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0


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
        super().connection_made(transport)
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
