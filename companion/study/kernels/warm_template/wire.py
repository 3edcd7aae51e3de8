"""What requester, template and kernel say to each other: JSON with a length, and descriptors.

File descriptors travel beside the bytes, as ancillary data of a Unix socket (``SCM_RIGHTS``,
unix(7)); that is how a kernel gets the standard streams of whoever asked for it.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: dict[str, Any], streams: tuple[int, ...] = ()) -> None:
    """Send one JSON message, with open file descriptors beside it (``SCM_RIGHTS``)."""
    body = json.dumps(message).encode("ascii")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
    connection.sendmsg([_LENGTH.pack(len(body))], ancillary if streams else [])
    connection.sendall(body)


def receive(connection: socket.socket, streams: int = 0) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and as many file descriptors as came with it, ``streams`` at most.

    Raises ``EOFError`` where the other side is gone, ``TimeoutError`` after the socket's timeout.
    """
    room = socket.CMSG_LEN(streams * array.array("i").itemsize) if streams else 0
    head, ancillary, _, _ = connection.recvmsg(_LENGTH.size, room)
    received = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    head += _exactly(connection, _LENGTH.size - len(head)) if head else b""
    if not head:
        raise EOFError("the other side closed the connection")
    body = _exactly(connection, _LENGTH.unpack(head)[0])
    return json.loads(body), list(received)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError("the other side closed the connection within a message")
        parts += part
    return bytes(parts)
