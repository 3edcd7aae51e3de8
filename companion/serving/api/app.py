"""The application: FastAPI in the middle, the hot path beside it, and around both what all share.

    POST /v2/predict   RequestId → [AccessLog] → HotPredict
    all else           RequestId → [AccessLog] → DeprecatedVersion → [trace id] → Measured → Guard
                       → Gated → ServerTiming → FastAPI

Around the *whole* means around FastAPI's own error handling too: the answer to an error that nobody
caught carries a request id like any other. The hot path is the same object wherever it is reached:
in front of FastAPI as a rule, and as FastAPI's own route where traces are on, so that the span is
FastAPI's and continues the caller's trace.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from companion.resilience.health import HealthRegistry
from companion.serving import problems
from companion.serving.api.admission import CLIENT, Gate, Gated
from companion.serving.api.explaining import Explaining
from companion.serving.api.hot import PATH, HotPredict
from companion.serving.api.routes import (
    complete_document,
    explain_router,
    first_version,
    hot_route,
    metrics_router,
)
from companion.serving.api.service import Service
from companion.serving.errors import ModelLoadError
from companion.serving.guards import Guard
from companion.serving.metrics import Measured, ServiceMetrics
from companion.serving.probes import probe_routes
from companion.serving.schemas import InvalidOut
from companion.serving.scorer import Scorer
from companion.serving.tracing import AccessLog, RequestId, ServerTiming
from companion.serving.versions import DeprecatedVersion

BATCHES = "/v2/batches"
_OPEN_IN_DOCUMENT = ("/health",)
_LOG = logging.getLogger(__name__)


class ScoringApp(FastAPI):
    """A FastAPI application whose HTTP requests come in through `front`, the hot ones by their own.

    `health`, `metrics` and `scorer` are there for whoever runs it.
    """

    scorer: Scorer
    health: HealthRegistry
    metrics: ServiceMetrics
    front: ASGIApp
    hot_front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif scope["path"] == PATH:
            await self.hot_front(scope, receive, send)
        else:
            await self.front(scope, receive, send)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI itself, with nothing around it."""
        await super().__call__(scope, receive, send)


def create_app(service: Service) -> ScoringApp:
    """The scoring service over HTTP. Nothing is started before the application is."""
    scorer = service.scorer
    batcher = scorer.batcher
    explaining = None
    if service.background is not None:
        explaining = Explaining(scorer, service.background)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if service.access is not None:
                stack.enter_context(service.access)
            if batcher is not None:
                await stack.enter_async_context(batcher)
            if explaining is not None:
                stack.callback(explaining.close)
                explaining.prepare(service.on_loaded)
            await run_in_threadpool(_try_to_load, scorer)
            if explaining is None:
                service.on_loaded()
            yield
            health.drain()

    app = ScoringApp(
        title="Fraud scores",
        version="2",
        summary="How probable fraud is, why, and what to do about it.",
        lifespan=lifespan,
        telemetry=service.traces.settings,
        # The answers of the service itself are problems, and are documented as such.
        responses=problems.documented(InvalidOut, (422,)),
    )
    metrics = ServiceMetrics(queue=(lambda: batcher.stats().waiting) if batcher else None)
    health = service.health or HealthRegistry({"model": _has_model(scorer)}, critical=["model"])
    app.scorer, app.health, app.metrics = scorer, health, metrics
    problems.install(app)
    gate = Gate(service.keys, service.limit, service.limit_store, service.proxies)
    hot = HotPredict(scorer, gate, service.limits, metrics)
    app.router.routes.append(hot_route(hot))
    if explaining is not None:
        app.include_router(explain_router(explaining))
    if service.jobs is not None:
        from companion.serving.jobs.routes import batch_router

        batches = batch_router(
            service.jobs, prefix=BATCHES, owner_of=_owner, on_accepted=service.on_accepted
        )
        app.include_router(batches)
    app.include_router(first_version(scorer))
    app.include_router(probe_routes(health))
    app.include_router(metrics_router(metrics))
    complete_document(app, _OPEN_IN_DOCUMENT)
    app.front = _front(app, service, gate)
    app.hot_front = _hot_front(app, service, hot)
    return app


def _front(app: ScoringApp, service: Service, gate: Gate) -> ASGIApp:
    """What stands around FastAPI."""
    front: ASGIApp = ServerTiming(app.inner)
    front = Gated(front, gate)
    front = Guard(front, service.limits, larger={BATCHES: service.upload_limits})
    front = Measured(front, app.metrics)
    front = service.traces.around(front)
    front = DeprecatedVersion(
        front,
        "/v1",
        deprecated_at=service.v1.deprecated_at,
        sunset_at=service.v1.sunset_at,
        successor=PATH,
        guide="/docs",
        clock=service.clock,
    )
    return _traceable(front, service)


def _hot_front(app: ScoringApp, service: Service, hot: HotPredict) -> ASGIApp:
    """What stands around the hot path, which looks after keys, limits and numbers itself."""
    front: ASGIApp = hot
    if service.traces.is_on:
        front = service.traces.around(app.inner)
    return _traceable(front, service)


def _traceable(app: ASGIApp, service: Service) -> ASGIApp:
    if service.access is not None:
        app = AccessLog(app, service.access)
    return RequestId(app)


def _owner(request: Request) -> str:
    owner: str = request.scope.get(CLIENT, "")
    return owner


def _has_model(scorer: Scorer) -> Callable[[], bool]:
    return lambda: scorer.holder.status().ready


def _try_to_load(scorer: Scorer) -> None:
    try:
        scorer.holder.load()
    except ModelLoadError as error:
        # The fallback answers, readiness says no, and every request tries again.
        _LOG.error("starting without a model: %s", error)
