"""One decision as Redis sees it: a script, a question in RESP, an answer of 25 bytes.

Each algorithm has one Lua script, which Redis runs as one step: nobody comes in between the look
and the change, from whichever machine. The time is the server's own (``TIME``), so its clients
need not agree on it. Clients name a script by its hash, and send it once more when the server does
not know it, after ``SCRIPT FLUSH`` or a fail-over.

Most of a question is the same every time, so it is encoded once.

Source: https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

from __future__ import annotations

import hashlib
import struct
from importlib.resources import files
from typing import Any

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision

_ANSWER = struct.Struct("<bddd")


def source_of(name: str) -> str:
    """The script of the algorithm called ``name``."""
    folder = files(__package__) / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))


class Script:
    """The script of one algorithm with one limit, under one prefix of keys."""

    def __init__(self, algorithm: Algorithm[Any], prefix: str) -> None:
        limit = algorithm.limit
        source = source_of(algorithm.name).encode()
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        # With another limit, what is remembered would mean something else: it is another key.
        self._prefix = f"{prefix}:{algorithm.name}:{limit.rate!r}:{limit.burst!r}:"
        self._by_hash = _array(9) + _bulk(b"EVALSHA") + _bulk(digest) + _bulk(b"1")
        self._by_text = _array(9) + _bulk(b"EVAL") + _bulk(source) + _bulk(b"1")
        numbers = (limit.rate, limit.burst, limit.window, algorithm.most)
        self._numbers = b"".join(_bulk(repr(float(number)).encode()) for number in numbers)
        self._burst = limit.burst

    def question(self, key: str, cost: float) -> tuple[bytes, bytes]:
        """The command by the script's hash, and the one by its text for a server that asks."""
        name = (self._prefix + key).encode("utf-8", "surrogatepass")
        rest = _bulk(name) + _bulk(repr(float(cost)).encode()) + self._numbers
        return self._by_hash + rest, self._by_text + rest

    def decision(self, answer: bytes) -> Decision:
        """What the server answered."""
        allowed, remaining, retry_after, reset = _ANSWER.unpack(answer)
        return Decision(allowed == 1, self._burst, remaining, retry_after, reset)


def _array(length: int) -> bytes:
    return b"*%d\r\n" % length


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
