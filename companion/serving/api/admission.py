"""Who may come in: the key first, then how much its owner may ask.

One gate for both ways into the application. The hot path asks `Gate.admit` itself; everything else
comes through `Gated`, which is the same question as ASGI middleware. What machines ask to find out
whether the process is well, and what people read to find out how to ask, needs no key.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.resilience.limiting import GCRA, AsyncStore, Limit, MemoryStore, RateLimiter
from companion.serving.keys import ApiKey, KeyRing, UnknownKeyError
from companion.serving.limits import QUOTA_EXCEEDED, TITLE, USED_UP, rate_limit_headers
from companion.serving.problems import MEDIA_TYPE, problem
from companion.serving.proxies import TrustedProxies, address_key

Headers = list[tuple[bytes, bytes]]

KEY_HEADER = b"x-api-key"
OPEN_PATHS = ("/health", "/docs", "/redoc", "/openapi.json")
"""What needs no key: probes and documentation."""
UNLIMITED_PATHS = ("/metrics",)
"""What needs a key and counts against no limit."""
CLIENT = "companion.client"
"""Where the scope of an admitted request says whose it is."""
MOST_RETRY_AFTER = 3600

_JSON_PROBLEM = (b"content-type", MEDIA_TYPE.encode())


class Admission(NamedTuple):
    """Who was let in, and the headers about limits for the answer."""

    client: str
    headers: Headers


class Refusal(Exception):  # noqa: N818 - it is an answer, and no mistake of ours
    """Somebody is not let in: the answer to be given."""

    def __init__(
        self, status: int, title: str, detail: str, headers: Headers, **extensions: str
    ) -> None:
        super().__init__(title)
        self.status = status
        self.headers: Headers = [_JSON_PROBLEM, *headers]
        self.body = problem(status, title, detail, **extensions)


class _Kept(NamedTuple):
    """A limit that is kept, and its window in seconds, which every answer tells."""

    limiter: RateLimiter
    window: float

    @classmethod
    def of(cls, limit: Limit, home: MemoryStore | AsyncStore) -> _Kept:
        return cls(RateLimiter(GCRA(limit), home), limit.window)


class Gate:
    """Asks for a key (if there is a ring of them) and keeps limits (if there is a usual one).

    Who has no key, where none is needed, is told apart by network address; `proxies` are those
    whose word on the address is taken.
    """

    def __init__(
        self,
        keys: KeyRing | None,
        usual: Limit | None,
        store: MemoryStore | AsyncStore | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        self._keys = keys
        self._proxies = proxies or TrustedProxies()
        home = store or MemoryStore()
        self._is_local = isinstance(home, MemoryStore)
        self._usual = _Kept.of(usual, home) if usual else None
        # A limiter knows one limit, so each that was agreed with somebody has one of its own.
        self._own = {
            key.id: _Kept.of(_limit_of(key, usual), home)
            for key in keys or ()
            if key.rate is not None
        }

    async def admit(self, scope: Scope, presented: bytes | None) -> Admission:
        """Let the request of `scope` in; raises `Refusal`, with 401 or 429.

        `presented` is the value of its header `X-API-Key`, if it has one.
        """
        client = self.identify(scope, presented)
        kept = self._own.get(client, self._usual)
        if kept is None:
            return Admission(client, [])
        limiter = kept.limiter
        decision = limiter.hit(client) if self._is_local else await limiter.ahit(client)
        headers = rate_limit_headers(decision, window=kept.window)
        if decision.allowed:
            return Admission(client, headers)
        raise Refusal(429, TITLE, USED_UP, headers, type=QUOTA_EXCEEDED)

    def identify(self, scope: Scope, presented: bytes | None) -> str:
        """The client of `scope`, whatever it has left; raises `Refusal` with 401."""
        if self._keys is None:
            return address_key(self._proxies.client_of(scope))
        try:
            return self._keys.owner(presented).id
        except UnknownKeyError as error:
            challenge = [(b"www-authenticate", b'ApiKey header="X-API-Key"')]
            raise Refusal(401, "Unauthorized", str(error), challenge) from None


class Gated:
    """ASGI middleware: only who `gate` admits reaches `app`; limits are told on every answer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_under(scope["path"], OPEN_PATHS):
            await self.app(scope, receive, send)
            return
        headers: Headers = []
        presented = dict(scope["headers"]).get(KEY_HEADER)
        try:
            if _is_under(scope["path"], UNLIMITED_PATHS):
                scope[CLIENT] = self._gate.identify(scope, presented)
            else:
                scope[CLIENT], headers = await self._gate.admit(scope, presented)
        except Refusal as refusal:
            await answer(send, refusal.status, refusal.headers, refusal.body)
            return

        def send_with_limits(message: Message) -> Awaitable[None]:
            if headers and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            return send(message)

        await self.app(scope, receive, send_with_limits)


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer; its length is added to `headers`."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """The header for who should come again in `seconds`: whole ones, from 1 up to an hour."""
    wait = MOST_RETRY_AFTER if seconds == math.inf else math.ceil(seconds)
    return b"retry-after", b"%d" % min(MOST_RETRY_AFTER, max(1, wait))


def _is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def _limit_of(key: ApiKey, usual: Limit | None) -> Limit:
    assert key.rate is not None
    burst = key.burst if key.burst is not None else (usual.burst if usual else max(1.0, key.rate))
    return Limit(key.rate, burst)
