"""A network link that can be broken on purpose: down, hung, slow or garbled, and mended again.

A dependency fails in more ways than by being gone. One that is *down* refuses at once, which is
the kind case; one that *hangs* accepts and says nothing, which costs every caller its whole
timeout; one that is *slow* is hung for impatient callers and well for patient ones; one that is
*garbled* answers what its protocol does not know. `FaultyLink` stands between a client and a real
server and does any of these, to the connections that are open and to those that come. The idea is
that of Shopify's Toxiproxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65_536

Mode = Literal["well", "down", "hung", "slow", "garbled"]


@dataclass(frozen=True)
class Fault:
    """What a link does to what passes through it; `seconds` delays each chunk of a slow one."""

    mode: Mode
    seconds: float = 0.0


WELL = Fault("well")
DOWN = Fault("down")
HUNG = Fault("hung")
GARBLED = Fault("garbled")


def slow(seconds: float) -> Fault:
    """Every chunk of an answer comes `seconds` later.

    Raises:
        ValueError: `seconds` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"a slow link delays by more than nothing, got {seconds}")
    return Fault("slow", seconds)


class FaultyLink:
    """A TCP port on the loopback interface that leads to a server, as long as it is well.

    ``with FaultyLink(6379) as link:`` listens on ``link.port``.  ``link.become(HUNG)`` takes effect
    for open and new connections before it returns; ``link.become(WELL)`` mends it.  Connections
    that were hung go on where they stood; those that were down are gone.

    Args:
        target: a TCP port on the loopback interface, or the path of a Unix socket.
    """

    def __init__(self, target: int | str) -> None:
        self._target = target
        self._fault = WELL
        self._port = 0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def port(self) -> int:
        """Where to connect to; the same one for the whole life of the link."""
        return self._port

    def become(self, fault: Fault) -> None:
        """From now on, this happens to what passes through."""
        asyncio.run_coroutine_threadsafe(self._become(fault), self._loop).result()

    def __enter__(self) -> FaultyLink:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.become(DOWN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _become(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault.mode == "down":
            await self._hang_up()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        # Bound again to the same port: whoever connects later must not need a new address.
        self._server = await asyncio.start_server(self._serve, _LOOPBACK, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with self._to_target() as (answers, requests), asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, requests, is_answer=False))
                group.create_task(self._pass_on(answers, writer, is_answer=True))
        except* (OSError, asyncio.CancelledError):
            pass  # either end hung up, or the link did, which is what a link is for
        finally:
            writer.close()
            self._connections.discard(task)

    @contextlib.asynccontextmanager
    async def _to_target(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if isinstance(self._target, int):
            answers, requests = await asyncio.open_connection(_LOOPBACK, self._target)
        else:
            answers, requests = await asyncio.open_unix_connection(self._target)
        try:
            yield answers, requests
        finally:
            requests.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while chunk := await source.read(_CHUNK):
            while self._fault.mode == "hung":
                await self._changed.wait()
            if is_answer and self._fault.mode == "slow":
                await asyncio.sleep(self._fault.seconds)
            if is_answer and self._fault.mode == "garbled":
                chunk = os.urandom(len(chunk))
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()
