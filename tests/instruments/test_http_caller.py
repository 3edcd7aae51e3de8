"""The HTTP client of load tests, against a server that says exactly what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from companion.instruments import HttpCaller, HttpStatusError, aclosed_loop, free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class CannedServer:
    """Gives the next of ``replies`` to each request; ``None``: ends the connection instead."""

    def __init__(self, *replies: bytes | None, hangs_up: bool = False) -> None:
        self.replies = list(replies)
        self.hangs_up = hangs_up  # after each reply, without a word about it
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                reply = self.replies.pop(0) if self.replies else OK
                if reply is None:
                    break
                writer.write(reply)
                if self.hangs_up:
                    break
                if b"content-length" not in reply.lower() and b"chunked" not in reply:
                    break
        writer.close()

    def url(self, target: str = "/score?fast=1") -> str:
        return f"http://127.0.0.1:{self.port}{target}"


@contextlib.asynccontextmanager
async def listening(server: CannedServer) -> AsyncIterator[CannedServer]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def against(
    server: CannedServer, talk: Callable[[HttpCaller], Awaitable[object]], **settings: object
) -> object:
    async def conversation() -> object:
        async with listening(server), HttpCaller(server.url(), **settings) as caller:  # type: ignore[arg-type]
            return await talk(caller)

    return asyncio.run(conversation())


def test_without_bodies_a_call_is_a_get_of_path_and_query() -> None:
    server = CannedServer()
    assert against(server, lambda caller: caller()) == b"ok"
    assert server.requests[0].startswith(b"GET /score?fast=1 HTTP/1.1\r\nhost: 127.0.0.1:")


def test_bodies_are_posted_in_turn_as_json_with_the_given_headers() -> None:
    server = CannedServer()

    async def three_calls(caller: HttpCaller) -> None:
        for number in range(3):
            await caller(number)

    against(server, three_calls, bodies=[b'{"a":1}', b"[]"], headers={"X-Api-Key": "k"})
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [
        b'{"a":1}',
        b"[]",
        b'{"a":1}',
    ]
    assert all(request.startswith(b"POST ") for request in server.requests)
    assert b"content-type: application/json\r\nx-api-key: k\r\n" in server.requests[0]


def test_another_content_type_replaces_json() -> None:
    server = CannedServer()
    against(server, lambda c: c(), bodies=[b"a"], headers={"Content-Type": "text/csv"})
    assert b"content-type: text/csv\r\n" in server.requests[0]
    assert b"application/json" not in server.requests[0]


def test_calls_one_after_another_share_one_connection() -> None:
    server = CannedServer()

    async def five_calls(caller: HttpCaller) -> None:
        await aclosed_loop(caller, calls=5, workers=1)

    against(server, five_calls)
    assert (len(server.requests), server.connections) == (5, 1)


def test_there_are_never_more_connections_than_calls_under_way() -> None:
    server = CannedServer()

    async def forty_calls(caller: HttpCaller) -> None:
        await aclosed_loop(caller, calls=40, workers=4)

    against(server, forty_calls)
    assert len(server.requests) == 40
    assert server.connections <= 4


def test_a_connection_opened_beforehand_is_the_one_used() -> None:
    server = CannedServer()

    async def connect_and_call(caller: HttpCaller) -> None:
        await caller.connect()
        await caller()

    against(server, connect_and_call)
    assert server.connections == 1


def test_a_status_of_400_or_above_is_an_error_with_status_and_body() -> None:
    reply = b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 8\r\n\r\nnot this"
    with pytest.raises(HttpStatusError, match="status 422: not this") as caught:
        against(CannedServer(reply), lambda caller: caller())
    assert (caught.value.status, caught.value.body) == (422, b"not this")


def test_a_refusal_leaves_the_connection_usable() -> None:
    server = CannedServer(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")

    async def refused_then_well(caller: HttpCaller) -> bytes:
        with pytest.raises(HttpStatusError):
            await caller()
        return await caller()

    assert against(server, refused_then_well) == b"ok"
    assert server.connections == 1


def test_chunks_are_put_together_and_trailers_dropped() -> None:
    reply = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    server = CannedServer(reply)

    async def two_calls(caller: HttpCaller) -> list[bytes]:
        return [await caller(), await caller()]

    assert against(server, two_calls) == [b"abcde", b"ok"]
    assert server.connections == 1


def test_a_reply_without_length_ends_with_its_connection() -> None:
    server = CannedServer(b"HTTP/1.1 200 OK\r\n\r\nto the end")

    async def two_calls(caller: HttpCaller) -> list[bytes]:
        return [await caller(), await caller()]

    assert against(server, two_calls) == [b"to the end", b"ok"]
    assert server.connections == 2


def test_no_content_has_no_body_to_wait_for() -> None:
    server = CannedServer(b"HTTP/1.1 204 No Content\r\nx-content-length: none\r\n\r\n")
    assert against(server, lambda caller: caller()) == b""


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_the_server_will_close_is_not_used_again(reply: bytes) -> None:
    server = CannedServer(reply, reply)

    async def two_calls(caller: HttpCaller) -> None:
        await caller()
        await caller()

    against(server, two_calls)
    assert server.connections == 2


def test_a_connection_that_ends_within_a_reply_is_an_error() -> None:
    with pytest.raises(EOFError):
        against(CannedServer(None), lambda caller: caller())


def test_an_answer_that_does_not_come_in_time_is_a_timeout() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    with pytest.raises(TimeoutError):
        against(CannedServer(half), lambda caller: caller(), timeout=0.05)


def test_where_nobody_listens_connecting_is_refused() -> None:
    caller = HttpCaller(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(caller.connect())


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "127.0.0.1:80", "http:///path"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host"):
        HttpCaller(url)


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        HttpCaller("http://127.0.0.1/", timeout=0)


def test_a_connection_that_the_server_closed_in_the_meantime_is_not_used_again():
    server = CannedServer(hangs_up=True)

    async def talk(caller: HttpCaller) -> bytes:
        await caller()
        await asyncio.sleep(0.05)  # until the end of the connection has arrived
        return await caller()

    assert against(server, talk) == b"ok"
    assert server.connections == 2
