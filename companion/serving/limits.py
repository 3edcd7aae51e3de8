"""Rate limits over HTTP: who is asking, what is refused, and what clients are told.

The limit is kept before the application sees the request, by pure ASGI middleware: it answers 429
itself, where an exception raised in its place would pass the framework's handlers and become a 500.

What clients are told follows draft-ietf-httpapi-ratelimit-headers-11 (May 2026): `RateLimit-Policy`
says what the limit is, `RateLimit` what is left of it (`r`) for how many seconds (`t`), and a 429
has the problem type `quota-exceeded`. `Retry-After` (RFC 9110) comes with every refusal that ends.
A client that never spends more than `r` within `t` is never refused.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.resilience.limiting import Decision, RateLimiter
from companion.serving.problems import MEDIA_TYPE, problem
from companion.serving.proxies import TrustedProxies, address_key

Headers = list[tuple[bytes, bytes]]

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
TITLE = "Too Many Requests"
USED_UP = "The limit is used up; Retry-After says when to come again."


def rate_limit_headers(
    decision: Decision, *, window: float | None = None, policy: str = "default"
) -> Headers:
    """What an answer says about the limit; on a refusal with `Retry-After`, unless waiting is vain.

    `window` is seconds, the window of the limit; without it the policy tells only the quota.
    `policy` is the limit's name. Numbers are whole, as the draft demands: what is left is rounded
    down, times are rounded up.
    """
    if decision.allowed:
        seconds = math.ceil(decision.reset)
    elif decision.never:
        return [_policy(policy, decision.limit, window), _left(policy, decision.remaining, None)]
    else:
        # By the draft the two must not contradict each other: nothing is left until then.
        seconds = max(1, math.ceil(decision.retry_after))
    headers = [_policy(policy, decision.limit, window), _left(policy, decision.remaining, seconds)]
    if not decision.allowed:
        headers.append((b"retry-after", b"%d" % seconds))
    return headers


def client_key(
    owner: Callable[[Scope], str | None], proxies: TrustedProxies | None = None
) -> Callable[[Scope], str]:
    """A key for limits: the API key's owner where there is one, else the network address.

    `owner` gives the name of whoever proved to be somebody, and `None` for all others: an API key
    that nobody checked is only a header, and a new one for each request would be a new limit.
    `proxies` are those whose word on the address is taken; without them it is the connection's.
    """
    known = proxies or TrustedProxies()

    def key(scope: Scope) -> str:
        name = owner(scope)
        if name is not None:
            return f"owner:{name}"
        return f"address:{address_key(known.client_of(scope))}"

    return key


class RateLimitMiddleware:
    """ASGI middleware that lets through what `limiter` allows and answers the rest with 429.

    Args:
        app: the application.
        limiter: one with a store that does not block: in memory, or `AsyncRedisStore`.
        key: whose limit a request counts against; see `client_key`.
        cost: what a request costs, in units of the limit.
        exempt: paths that are never limited, with all that is below them. An orchestrator that is
            refused believes the service dead, and restarts it.
        policy: the limit's name in the headers.

    Raises:
        ValueError: a `policy` that no header could carry.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: RateLimiter,
        *,
        key: Callable[[Scope], str],
        cost: Callable[[Scope], float] | None = None,
        exempt: Sequence[str] = ("/health",),
        policy: str = "default",
    ) -> None:
        if not policy.isascii() or not policy.isprintable() or set(policy) & set('"\\'):
            raise ValueError(f"policy is printable ASCII without quotes, got {policy!r}")
        self.app = app
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._exempt = tuple(exempt)
        self._below = tuple(path.rstrip("/") + "/" for path in exempt)
        self._window = limiter.limit.window
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_exempt(scope["path"]):
            await self.app(scope, receive, send)
            return
        cost = 1.0 if self._cost is None else self._cost(scope)
        decision = await self._limiter.ahit(self._key(scope), cost)
        headers = rate_limit_headers(decision, window=self._window, policy=self._policy)
        if not decision.allowed:
            await self._refuse(decision, headers, send)
            return

        # Not a coroutine function: that would cost one coroutine more for each message.
        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            return send(message)

        await self.app(scope, receive, send_with_headers)

    def _is_exempt(self, path: str) -> bool:
        return path in self._exempt or path.startswith(self._below)

    async def _refuse(self, decision: Decision, headers: Headers, send: Send) -> None:
        detail = "This request costs more than the limit ever gives." if decision.never else USED_UP
        named: dict[str, Any] = {"type": QUOTA_EXCEEDED, "violated-policies": [self._policy]}
        body = problem(429, TITLE, detail, **named)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=256)
def _policy(policy: str, limit: float, window: float | None) -> tuple[bytes, bytes]:
    item = f'"{policy}";q={math.floor(limit)}'
    if window is not None:
        item += f";w={max(1, math.ceil(window))}"
    return b"ratelimit-policy", item.encode("ascii")


def _left(policy: str, remaining: float, seconds: int | None) -> tuple[bytes, bytes]:
    # A rounding error short of a whole unit is a whole unit.
    item = f'"{policy}";r={math.floor(remaining + 1e-6)}'
    if seconds is not None:
        item += f";t={seconds}"
    return b"ratelimit", item.encode("ascii")
