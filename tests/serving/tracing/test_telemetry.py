"""Traces: FastAPI's own, with the trace id on the answer, steps inside, and a way to be off."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from companion.serving.tracing import ServerTiming
from companion.serving.tracing.telemetry import (
    OFF,
    ExporterMissingError,
    Telemetry,
    aforward_trace,
    forward_trace,
    telemetry,
    telemetry_from_environment,
)

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER}-01"


class Traced:
    """A small service, traced, and the spans that it left."""

    def __init__(self, **settings):
        self.exporter = InMemorySpanExporter()
        self.traces = telemetry(self.exporter, **settings)
        app = FastAPI(telemetry=self.traces.settings)

        @app.get("/score/{number}")
        async def score(number: int):
            with self.traces.span("features"), self.traces.span("store"):
                await asyncio.sleep(0)
            with self.traces.span("model"):
                return number

        @app.get("/sync")
        def sync():
            with self.traces.span("model"):
                pass

        @app.get("/broken")
        async def broken():
            with self.traces.span("model"):
                raise RuntimeError("unhandled")

        @app.get("/health/live")
        async def live():
            with self.traces.span("check"):
                pass

        @app.get("/calls")
        async def calls():
            hooks = {"request": [aforward_trace]}
            seen = []
            downstream = httpx.MockTransport(lambda r: seen.append(r) or httpx.Response(200))
            async with httpx.AsyncClient(transport=downstream, event_hooks=hooks) as client:
                with self.traces.span("store"):
                    await client.get("http://features/1")
            return dict(seen[0].headers)

        self.app = ServerTiming(self.traces.around(app))

    def spans(self):
        self.traces.provider.force_flush()
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traced():
    service = Traced()
    yield service
    service.traces.provider.shutdown()


def trace_of(span):
    return trace.format_trace_id(span.context.trace_id)


def test_a_request_leaves_a_tree_of_spans(traced, get):
    assert get(traced.app, "/score/7").status_code == 200
    spans = traced.spans()
    server = spans["GET /score/{number}"]
    assert server.kind is SpanKind.SERVER
    parents = {name: spans[name].parent.span_id for name in ("features", "store", "model")}
    assert parents == {
        "features": server.context.span_id,
        "store": spans["features"].context.span_id,
        "model": server.context.span_id,
    }
    assert server.resource.attributes["service.name"] == "fraud-scoring"


def test_a_span_in_a_thread_hangs_below_its_request(traced, get):
    get(traced.app, "/sync")
    spans = traced.spans()
    assert spans["model"].parent.span_id == spans["GET /sync"].context.span_id


def test_the_callers_trace_is_continued(traced, get):
    response = get(traced.app, "/score/7", {"traceparent": TRACEPARENT})
    server = traced.spans()["GET /score/{number}"]
    assert trace_of(server) == response.headers["x-trace-id"] == TRACE_ID
    assert trace.format_span_id(server.parent.span_id) == CALLER


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        f"00-{TRACE_ID.upper()}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{CALLER}-01-more",
        f"ff-{TRACE_ID}-{CALLER}-01",
        f"00-{TRACE_ID}-{CALLER}",
        "0" * 100_000,
        b"\xff\xfe\x85",
    ],
)
def test_a_bad_traceparent_starts_a_new_trace_and_harms_nothing(traced, get, bad):
    response = get(traced.app, "/score/7", {b"traceparent": bad})
    assert response.status_code == 200
    trace_id = response.headers["x-trace-id"]
    assert re.fullmatch("[0-9a-f]{32}", trace_id)
    assert trace_id != TRACE_ID
    server = traced.spans()["GET /score/{number}"]
    assert (trace_of(server), server.parent) == (trace_id, None)


@pytest.mark.parametrize("path", ["/score/7", "/nowhere", "/score/x", "/broken"])
def test_every_traced_answer_carries_the_trace_id(traced, get, path):
    assert get(traced.app, path, {"traceparent": TRACEPARENT}).headers["x-trace-id"] == TRACE_ID


def test_an_unhandled_error_is_seen_in_the_trace(traced, get):
    assert get(traced.app, "/broken").status_code == 500
    spans = traced.spans()
    assert spans["GET /broken"].status.status_code is StatusCode.ERROR
    assert spans["model"].status.status_code is StatusCode.ERROR


def test_steps_are_in_server_timing_too(traced, get):
    header = get(traced.app, "/score/7").headers["server-timing"]
    assert re.findall(r"([a-z]+);dur=", header) == ["store", "features", "model", "total"]


def test_probes_leave_no_spans_of_requests(traced, get):
    response = get(traced.app, "/health/live")
    assert response.status_code == 200
    assert "x-trace-id" not in response.headers
    assert "GET /health/live" not in traced.spans()


def test_fastapis_own_operations_are_traced_when_asked_for(get):
    service = Traced(operation_spans=True, service="other")
    get(service.app, "/score/7")
    spans = service.spans()
    assert {"fastapi.dependencies", "fastapi.endpoint", "fastapi.serialization"} <= set(spans)
    assert spans["fastapi.endpoint"].resource.attributes["service.name"] == "other"
    service.traces.provider.shutdown()


def test_requests_at_once_keep_their_own_traces(traced, exchange):
    ids = [f"{number:032x}" for number in range(1, 41)]
    requests = [("GET", "/score/7", {"traceparent": f"00-{i}-{CALLER}-01"}) for i in ids]
    assert [r.headers["x-trace-id"] for r in exchange(traced.app, *requests)] == ids


def test_outgoing_calls_continue_the_trace(traced, get):
    sent = get(traced.app, "/calls", {"traceparent": TRACEPARENT, "baggage": "a=b"}).json()
    store = traced.spans()["store"]
    span_id = trace.format_span_id(store.context.span_id)
    assert sent["traceparent"] == f"00-{TRACE_ID}-{span_id}-01"
    assert "baggage" not in sent


def test_outside_of_a_trace_outgoing_calls_carry_none():
    request = httpx.Request("GET", "http://features/1")
    forward_trace(request)
    assert "traceparent" not in request.headers


async def nothing():
    raise AssertionError("nobody calls this")


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass_untouched(traced, kind):
    async def run():
        seen = []

        async def app(*args):
            seen.append(args)

        scope = {"type": kind}
        await traced.traces.around(app)(scope, nothing, nothing)
        return seen == [(scope, nothing, nothing)]

    assert asyncio.run(run())


def test_an_answer_without_a_trace_is_left_as_it_is(traced, get):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert "x-trace-id" not in get(traced.traces.around(app)).headers


def test_off_adds_nothing_around_the_application(get):
    app = FastAPI(telemetry=OFF.settings)
    around = OFF.around(app)
    assert around is app
    assert not OFF.is_on
    with OFF.span("model"):
        assert not trace.get_current_span().is_recording()
    assert "x-trace-id" not in get(around, "/nowhere").headers


@pytest.mark.parametrize("name", ["a b", "total"])
def test_a_span_has_one_rule_for_names_on_and_off(traced, name):
    for traces in (traced.traces, OFF):
        with pytest.raises(ValueError, match="cannot be the name of a span"), traces.span(name):
            pass


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_in_the_environment_it_is_off(environment):
    assert telemetry_from_environment(environment) is OFF


EXPORTER = """
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

sent = []

class OTLPSpanExporter(SpanExporter):
    def __init__(self, endpoint):
        self.endpoint = endpoint

    def export(self, spans):
        sent.extend((self.endpoint, span.name) for span in spans)
        return SpanExportResult.SUCCESS
"""


@pytest.fixture
def exporter(tmp_path, monkeypatch):
    """A stand-in for the package that sends OTLP, found where the real one would be."""
    package = tmp_path / "opentelemetry" / "exporter" / "otlp" / "proto" / "http"
    for name, text in {
        "trace_exporter": EXPORTER,
        "metric_exporter": "class OTLPMetricExporter: pass",
        "_log_exporter": "class OTLPLogExporter: pass",
    }.items():
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_with_an_endpoint_and_no_exporter_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("companion.serving.tracing.telemetry._EXPORTER", "nowhere.to.be.found")
    with pytest.raises(ExporterMissingError, match="install opentelemetry-exporter-otlp") as told:
        telemetry_from_environment(ENDPOINT)
    assert told.value.variable == "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_spans_go_to_the_endpoint_that_the_environment_names(exporter, monkeypatch):
    for name, value in ENDPOINT.items():
        monkeypatch.setenv(name, value)
    traces = telemetry_from_environment()
    app = FastAPI(telemetry=traces.settings)

    @app.get("/score")
    async def score():
        return 1

    async def run():
        """Start the application as a server does, ask once, and stop it."""
        steps = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        started, asked = asyncio.Event(), asyncio.Event()

        async def receive():
            step = next(steps)
            if step["type"] == "lifespan.shutdown":
                await asked.wait()
            return step

        async def send(message):
            assert message["type"].endswith(".complete")
            started.set()

        running = asyncio.create_task(app({"type": "lifespan"}, receive, send))
        await started.wait()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            await client.get("/score")
        asked.set()
        await running

    asyncio.run(run())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import sent

    assert sent == [("http://127.0.0.1:4318/v1/traces", "GET /score")]
    traces.provider.shutdown()


def test_a_provider_of_your_own_is_used():
    class Provider:
        def get_tracer(self, name):
            return f"tracer of {name}"

    provider = Provider()
    traces = Telemetry(provider)
    assert traces.settings["tracer_provider"] is provider
    assert traces.is_on
