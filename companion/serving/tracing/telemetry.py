"""Traces by OpenTelemetry: FastAPI's own support, set up with the providers we choose.

A trace is a tree of timed spans across services. What joins the services is the `traceparent`
header (W3C Trace Context): version, trace id, the caller's span id, flags. FastAPI opens the span
of a request around its whole middleware stack and continues the caller's trace; a `traceparent`
that does not parse starts a new one. This module adds what it leaves open: the trace id on the
answer, spans for the steps inside, hooks that carry the trace on, and a way to be off for nothing.

Providers are arguments and never become global, so two applications in one process, or a test
beside a library that traces too, do not mix.
"""

import importlib.util
import os
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import httpx
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.serving.tracing import server_timing

TRACE_ID_HEADER = "x-trace-id"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_UNTRACED = ("/health", "/metrics")
_propagator = TraceContextTextMapPropagator()


class ExporterMissingError(Exception):
    """The environment asks for traces by OTLP, and the package that sends them is not installed."""

    def __init__(self, variable: str) -> None:
        super().__init__(variable)
        self.variable = variable

    def __str__(self) -> str:
        return (
            f"{self.variable} is set: install opentelemetry-exporter-otlp-proto-http, or unset it"
        )


class Telemetry:
    """The traces of one application, by the given provider; with `None` there are none.

        traces = Telemetry(provider)
        app = FastAPI(telemetry=traces.settings)
        application = traces.around(app)

    `settings` go to FastAPI. Only traces are on: metrics and logs have ways of their own here.
    `operation_spans` asks FastAPI for spans of dependencies, endpoint and serialisation as well,
    `from_environment` has it send to the OTLP endpoint named in the environment. Paths that begin
    with one of `untraced` get no span.

    The provider stays the caller's, who shuts it down at the end.
    """

    def __init__(
        self,
        provider: TracerProvider | None,
        *,
        operation_spans: bool = False,
        from_environment: bool = False,
        untraced: tuple[str, ...] = _UNTRACED,
    ) -> None:
        self.provider = provider
        self.settings: TelemetryConfig = {
            "tracer_provider": provider,
            "tracing": provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": operation_spans,
            "auto_configure": from_environment,
            "exclude": lambda scope: scope.get("path", "").startswith(untraced),
        }
        self._tracer = provider.get_tracer("companion.serving") if provider else None

    @property
    def is_on(self) -> bool:
        """Whether there are traces at all."""
        return self._tracer is not None

    def span(self, name: str) -> AbstractContextManager[None]:
        """`server_timing.span(name)` and, where traces are on, a span below the current one.

        Raises `ValueError` for a name that Server-Timing does not allow.
        """
        if self._tracer is None:
            return server_timing.span(name)
        return _timed_and_traced(self._tracer, name)

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app` with the trace id on every traced answer; `app` itself where traces are off."""
        return app if self._tracer is None else TraceIdHeader(app)


OFF = Telemetry(None)
"""No traces: FastAPI skips them, `around` adds nothing, `span` only times."""


def telemetry(
    exporter: SpanExporter, *, service: str = "fraud-scoring", operation_spans: bool = False
) -> Telemetry:
    """Traces of `service` sent by `exporter` in batches from a thread of their own.

    What is not sent yet waits in memory; `provider.force_flush()` sends it, `provider.shutdown()`
    too. What share is recorded follows `OTEL_TRACES_SAMPLER`, by default all, or what the caller's
    flags say.
    """
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Telemetry(provider, operation_spans=operation_spans)


def telemetry_from_environment(environment: Mapping[str, str] = os.environ) -> Telemetry:
    """Traces to the OTLP endpoint that OpenTelemetry's own variables name, else `OFF`.

    Those are `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`), `OTEL_SERVICE_NAME`,
    `OTEL_TRACES_SAMPLER` and so on; `OTEL_SDK_DISABLED=true` and `OTEL_TRACES_EXPORTER=none` turn
    it off. FastAPI starts the exporter with the application and sends the rest when it stops.

    Raises:
        ExporterMissingError: an endpoint is named and the exporter's package is not installed.
    """
    variable = next((name for name in _ENDPOINTS if environment.get(name)), None)
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if variable is None or disabled or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return OFF
    if not _is_installed(_EXPORTER):
        raise ExporterMissingError(variable)
    return Telemetry(TracerProvider(), from_environment=True)


class TraceIdHeader:
    """ASGI middleware outside of FastAPI's span that puts the trace's id on the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        # It is called below FastAPI's span, so that span is the current one here.
        def send_with_trace_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                context = trace.get_current_span().get_span_context()
                if context.is_valid:
                    trace_id = trace.format_trace_id(context.trace_id).encode()
                    pair = (TRACE_ID_HEADER.encode(), trace_id)
                    message = {**message, "headers": [*message.get("headers", ()), pair]}
            return send(message)

        await self.app(scope, receive, send_with_trace_id)


def forward_trace(request: httpx.Request) -> None:
    """Hook for `httpx.Client(event_hooks={"request": [forward_trace]})`: sends `traceparent` on.

    The current span becomes the parent of what the called service does. Baggage that a client sent
    is not carried on.
    """
    _propagator.inject(request.headers)


async def aforward_trace(request: httpx.Request) -> None:
    """`forward_trace` for `httpx.AsyncClient`."""
    forward_trace(request)


@contextmanager
def _timed_and_traced(tracer: trace.Tracer, name: str) -> Iterator[None]:
    with server_timing.span(name), tracer.start_as_current_span(name):
        yield


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False
