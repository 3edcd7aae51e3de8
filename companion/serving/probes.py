"""The three probes of a process over HTTP: what an orchestrator asks, and nothing it could break.

`GET /health/live`, `/health/ready` and `/health/startup` as routes for any application. The status
code is the answer (200 or 503); the body is for people, and names no more than the type of an
error. All three are `async def`: a plain `def` would wait for one of the threads that requests
use, and a busy process would look dead to whoever then restarts it.

The questions, and who decides them, are in :mod:`companion.resilience.health`.
"""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from companion.resilience.health import CheckResult, HealthRegistry, Readiness

__all__ = ["probe_routes"]


class CheckReport(BaseModel):
    """One check. `error` is the type of what went wrong, None where nothing did."""

    passed: bool
    critical: bool
    error: str | None
    seconds: float


class LivenessReport(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class ReadinessReport(BaseModel):
    """Whether traffic may come. `degraded`: it may, and an optional check fails."""

    status: Literal["ready", "degraded", "not ready", "draining"]
    checks: dict[str, CheckReport]


class StartupReport(BaseModel):
    """Whether the process has been ready once."""

    status: Literal["started", "starting"]
    checks: dict[str, CheckReport]


def probe_routes(registry: HealthRegistry, *, prefix: str = "/health") -> APIRouter:
    """The routes `{prefix}/live`, `{prefix}/ready` and `{prefix}/startup` for `registry`.

    `live` is 200 whenever the event loop turns, draining or not. `ready` and `startup` are 200 or
    503. No answer may be stored by a cache on the way.
    """
    router = APIRouter(prefix=prefix, tags=["health"])

    @router.get("/live", summary="Would a restart help?")
    async def live(response: Response) -> LivenessReport:
        registry.liveness()
        _answer(response, good=True)
        return LivenessReport(status="alive")

    @router.get(
        "/ready",
        summary="May traffic come?",
        responses={503: {"model": ReadinessReport, "description": "Not ready, or draining"}},
    )
    async def ready(response: Response) -> ReadinessReport:
        readiness = await registry.readiness()
        _answer(response, good=readiness.ready)
        return ReadinessReport(status=_in_a_word(readiness), checks=_reports(readiness.checks))

    @router.get(
        "/startup",
        summary="Has it been ready once?",
        responses={503: {"model": StartupReport, "description": "Still starting"}},
    )
    async def startup(response: Response) -> StartupReport:
        seen = await registry.startup()
        _answer(response, good=seen.started)
        status: Literal["started", "starting"] = "started" if seen.started else "starting"
        return StartupReport(status=status, checks=_reports(seen.checks))

    return router


def _answer(response: Response, *, good: bool) -> None:
    response.status_code = 200 if good else 503
    response.headers["cache-control"] = "no-store"


def _in_a_word(seen: Readiness) -> Literal["ready", "degraded", "not ready", "draining"]:
    if seen.draining:
        return "draining"
    if not seen.ready:
        return "not ready"
    return "degraded" if seen.degraded else "ready"


def _reports(checks: tuple[CheckResult, ...]) -> dict[str, CheckReport]:
    return {
        check.name: CheckReport(
            passed=check.passed,
            critical=check.critical,
            error=check.error,
            seconds=round(check.seconds, 4),
        )
        for check in checks
    }
