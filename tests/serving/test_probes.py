"""The probes over HTTP: the status code is the answer, the body is for people."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from companion.resilience.health import HealthRegistry
from companion.serving.probes import probe_routes


def passes():
    return True


def fails():
    raise ConnectionError("redis://:secret@cache.internal")


def ask(path, checks, critical=(), *, drain=False, prefix="/health"):
    health = HealthRegistry(checks, critical=critical)
    if drain:
        health.drain()
    app = FastAPI()
    app.include_router(probe_routes(health, prefix=prefix))

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get(path)

    return asyncio.run(run())


@pytest.mark.parametrize("drain", [False, True])
def test_alive_is_200_whatever_the_checks_say(drain):
    response = ask("/health/live", {"model": fails}, ["model"], drain=drain)
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("checks", "drain", "code", "status"),
    [
        ({"model": passes, "cache": passes}, False, 200, "ready"),
        ({"model": passes, "cache": fails}, False, 200, "degraded"),
        ({"model": fails, "cache": passes}, False, 503, "not ready"),
        ({"model": passes, "cache": passes}, True, 503, "draining"),
    ],
)
def test_readiness_is_200_or_503_and_says_why(checks, drain, code, status):
    response = ask("/health/ready", checks, ["model"], drain=drain)
    assert (response.status_code, response.json()["status"]) == (code, status)


@pytest.mark.parametrize(
    ("check", "code", "status"), [(passes, 200, "started"), (fails, 503, "starting")]
)
def test_startup_is_200_once_it_has_been_ready(check, code, status):
    response = ask("/health/startup", {"model": check}, ["model"])
    assert (response.status_code, response.json()["status"]) == (code, status)


def test_a_failed_check_is_named_with_the_type_of_its_error_and_no_more():
    response = ask("/health/ready", {"cache": fails})
    report = response.json()["checks"]["cache"]
    assert isinstance(report.pop("seconds"), float)
    assert report == {"passed": False, "critical": False, "error": "ConnectionError"}
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["live", "ready", "startup"])
def test_no_answer_may_be_stored_on_the_way(path):
    assert ask(f"/health/{path}", {}).headers["cache-control"] == "no-store"


def test_the_prefix_is_a_setting():
    assert ask("/internal/ready", {}, prefix="/internal").status_code == 200


def test_both_answers_of_readiness_are_in_the_schema():
    app = FastAPI()
    app.include_router(probe_routes(HealthRegistry({}, critical=[])))
    responses = app.openapi()["paths"]["/health/ready"]["get"]["responses"]
    schemas = [responses[code]["content"]["application/json"]["schema"] for code in ("200", "503")]
    assert schemas[0] == schemas[1]
