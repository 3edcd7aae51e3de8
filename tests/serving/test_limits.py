"""Rate limits over HTTP: the 429, its headers, what is exempt, and whose limit it is."""

from __future__ import annotations

import asyncio
import json
import math

import httpx
import pytest
from fastapi import FastAPI

from companion.instruments import FakeClock
from companion.resilience.limiting import (
    GCRA,
    Decision,
    FixedWindow,
    Limit,
    MemoryStore,
    RateLimiter,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from companion.serving.limits import RateLimitMiddleware, client_key, rate_limit_headers
from companion.serving.proxies import TrustedProxies


def fields(decision, **settings):
    return {
        name.decode(): value.decode() for name, value in rate_limit_headers(decision, **settings)
    }


THREE = Limit(rate=1, burst=3)


class Service:
    """A small application behind the middleware, with a clock that stands still."""

    def __init__(self, limit=THREE, *, key=lambda scope: "k", **settings):
        self.clock, self.reached = FakeClock(100.0), 0
        api = FastAPI()

        @api.get("/{path:path}")
        async def anything(path: str):
            self.reached += 1
            return {"path": path}

        limiter = RateLimiter(GCRA(limit), MemoryStore(self.clock))
        self.app = RateLimitMiddleware(api, limiter, key=key, **settings)

    def get(self, path="/predict", headers=None):
        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


# ----- the middleware ------------------------------------------------------------------------


def test_what_is_past_the_limit_is_429_and_never_reaches_the_application():
    service = Service()
    assert [service.get().status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert service.reached == 3


def test_a_refusal_is_a_problem_that_names_the_policy():
    service = Service(policy="per-key")
    for _ in range(3):
        service.get()
    refused = service.get()
    assert refused.headers["content-type"] == "application/problem+json"
    body = json.loads(refused.content)
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["status"] == 429
    assert body["violated-policies"] == ["per-key"]
    assert "request_id" in body
    assert int(refused.headers["content-length"]) == len(refused.content)


def test_a_refusal_says_when_to_come_again_and_keeps_its_word():
    service = Service(Limit(rate=0.1, burst=3))
    for _ in range(3):
        service.get()
    refused = service.get()
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["ratelimit"] == '"default";r=0;t=10'
    service.clock.advance(int(refused.headers["retry-after"]))
    assert service.get().status_code == 200


def test_every_answer_says_what_is_left():
    service = Service(Limit(rate=0.5, burst=3))
    answer = service.get()
    assert answer.headers["ratelimit-policy"] == '"default";q=3;w=6'
    assert answer.headers["ratelimit"] == '"default";r=2;t=2'
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live"])
def test_probes_are_exempt_when_the_limit_is_used_up(path):
    service = Service()
    for _ in range(4):
        service.get()
    assert [service.get(path).status_code for _ in range(20)] == [200] * 20
    assert "ratelimit" not in service.get(path).headers


@pytest.mark.parametrize("path", ["/healthy", "/v2/health", "/Health"])
def test_what_only_looks_like_a_probe_is_not_exempt(path):
    service = Service()
    assert [service.get(path).status_code for _ in range(4)][-1] == 429


def test_a_cost_may_depend_on_the_request():
    service = Service(cost=lambda scope: 2.0 if scope["path"] == "/explain" else 0.5)
    assert service.get("/explain").status_code == 200
    assert [service.get().status_code for _ in range(3)] == [200, 200, 429]


def test_a_request_above_the_limit_is_told_not_to_come_again():
    refused = Service(cost=lambda scope: 4.0).get()
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
    assert refused.headers["ratelimit"] == '"default";r=3'
    assert "more than the limit" in refused.json()["detail"]


def test_who_has_a_key_has_a_limit_of_its_own():
    owners = {b"secret-a": "a", b"secret-b": "b"}

    def owner(scope):
        return owners.get(dict(scope["headers"]).get(b"x-api-key"))

    service = Service(key=client_key(owner))
    for _ in range(4):
        service.get(headers={"x-api-key": "secret-a"})
    assert service.get(headers={"x-api-key": "secret-a"}).status_code == 429
    assert service.get(headers={"x-api-key": "secret-b"}).status_code == 200


def test_a_key_that_nobody_knows_buys_no_limit_of_its_own():
    service = Service(key=client_key(lambda scope: None))
    statuses = [service.get(headers={"x-api-key": f"made up {n}"}).status_code for n in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_a_forged_address_buys_no_limit_of_its_own():
    service = Service(key=client_key(lambda scope: None))
    statuses = [
        service.get(headers={"x-forwarded-for": f"203.0.113.{n}"}).status_code for n in range(5)
    ]
    assert statuses == [200, 200, 200, 429, 429]


def test_behind_a_trusted_proxy_addresses_have_limits_of_their_own():
    proxies = TrustedProxies(["127.0.0.1"])
    service = Service(key=client_key(lambda scope: None, proxies))
    for _ in range(4):
        service.get(headers={"x-forwarded-for": "203.0.113.1"})
    assert service.get(headers={"x-forwarded-for": "203.0.113.1"}).status_code == 429
    assert service.get(headers={"x-forwarded-for": "203.0.113.2"}).status_code == 200


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_anything_but_http_passes_through(kind):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    middleware = RateLimitMiddleware(app, RateLimiter(GCRA(Limit(1, 1))), key=lambda scope: "k")
    for _ in range(3):
        asyncio.run(middleware({"type": kind, "path": "/", "headers": []}, None, None))
    assert seen == [kind] * 3


@pytest.mark.parametrize("policy", ['a"b', "a\\b", "größe", "a\r\nb"])
def test_a_policy_that_no_header_could_carry_is_refused(policy):
    with pytest.raises(ValueError, match="policy"):
        Service(policy=policy)


# ----- the headers ---------------------------------------------------------------------------


def test_what_is_left_is_rounded_down_and_times_are_rounded_up():
    told = fields(Decision(True, 10.5, 2.9, 0.0, 3.1))
    assert told == {"ratelimit-policy": '"default";q=10', "ratelimit": '"default";r=2;t=4'}
    told = fields(Decision(False, 10, 0.3, 0.2, 9.0), window=59.5)
    assert told["ratelimit-policy"] == '"default";q=10;w=60'
    assert (told["ratelimit"], told["retry-after"]) == ('"default";r=0;t=1', "1")


def test_a_rounding_error_does_not_hide_a_unit():
    assert fields(Decision(True, 10, 1.9999999999, 0.0, 1.0))["ratelimit"] == '"default";r=2;t=1'


def test_an_untouched_limit_has_nothing_to_wait_for():
    assert fields(Decision(True, 10, 10.0, 0.0, 0.0))["ratelimit"] == '"default";r=10;t=0'


@pytest.mark.parametrize("make", [FixedWindow, SlidingLog, SlidingCounter, TokenBucket, GCRA])
def test_a_client_that_keeps_to_the_headers_is_never_refused(make):
    """It spends what is left, evenly over the time that it was told, and then looks again."""
    clock = FakeClock(1000.3)
    limiter = RateLimiter(make(Limit.per_minute(17, burst=7)), MemoryStore(clock))
    for _ in range(30):
        parameters = dict(
            part.split("=") for part in fields(limiter.hit("k", 0))["ratelimit"].split(";")[1:]
        )
        left, seconds = int(parameters["r"]), int(parameters["t"])
        for _ in range(left):
            assert limiter.hit("k").allowed
            clock.advance(seconds / max(left, 1))
        clock.advance(1)


def test_no_number_is_too_large_for_a_header():
    told = fields(Decision(False, 1e15, 1e15, math.inf, 5.0))
    assert told["ratelimit"] == '"default";r=1000000000000000'
