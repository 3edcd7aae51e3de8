"""The application as a client sees it: answers, refusals, headers, documents."""

import asyncio
import json
import threading
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from companion.features.defaults import FEATURES
from companion.resilience.limiting import Limit
from companion.serving.api import Deprecation, Service, create_app
from companion.serving.api.explaining import MOST_WAITING, Explaining, NoBackgroundError
from companion.serving.batching import MicroBatcher, QueueFullError
from companion.serving.guards import ClientLeftError, Limits
from companion.serving.holder import ModelHolder
from companion.serving.keys import KeyRing, generate_key
from companion.serving.schemas import ExplanationOut, ScoreOut
from companion.serving.scorer import Scorer, StateFeatures, batch_predictor
from companion.serving.tracing import AccessLines
from companion.serving.tracing.telemetry import Telemetry

PROBLEM = "application/problem+json"
TRANSACTION = {
    "transaction_id": 10_000,
    "time": "2026-03-01T12:30:00Z",
    "customer_id": 1,
    "merchant_id": 2,
    "category": "fuel",
    "amount": 80.5,
    "distance_km": 4.0,
    "device_id": 1,
    "is_online": True,
}


def no_model():
    raise OSError("there is none")


@pytest.fixture
def empty(history):
    """A scorer without a model."""
    return Scorer(ModelHolder(no_model), StateFeatures(history.state))


# ----- scores -----------------------------------------------------------------------------------


def test_a_transaction_gets_a_score_that_keeps_the_contract(client):
    answer = client.predict()

    score = ScoreOut.model_validate_json(answer.content)
    assert answer.status_code == 200
    assert (score.source, score.model_version, score.degraded) == ("model", "v-test", False)
    assert score.request_id == answer.headers["x-request-id"]


def test_without_a_model_there_is_still_an_answer_and_it_says_so(open_client, empty):
    score = open_client(Service(empty)).predict().json()

    assert (score["source"], score["degraded"], score["model_version"]) == ("fallback", True, None)


def test_reasons_come_in_words_and_add_up(client):
    answer = client.ask("POST", "/v2/explain", json=TRANSACTION)

    told = ExplanationOut.model_validate_json(answer.content)
    total = told.base + sum(told.contributions.values())
    assert total == pytest.approx(told.fraud_probability, abs=1e-6)
    assert told.reasons[0].subject == "log_amount"
    assert "80.50" in told.reasons[0].words
    assert told.request_id == answer.headers["x-request-id"]


def test_an_explanation_and_a_score_agree(client):
    score = client.predict().json()
    told = client.ask("POST", "/v2/explain", json=TRANSACTION).json()

    shared = ("fraud_probability", "decision", "threshold", "model_version", "features_age_s")
    assert {name: told[name] for name in shared} == pytest.approx(
        {name: score[name] for name in shared}
    )


def test_without_a_model_there_is_nothing_to_explain(open_client, empty, history):
    client = open_client(Service(empty, background=history.background))

    answer = client.ask("POST", "/v2/explain", json=TRANSACTION)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_explanations_queue_only_so_long(scorer, history):
    explaining = Explaining(scorer, history.background)
    explaining._waiting = MOST_WAITING

    with pytest.raises(QueueFullError) as caught:
        asyncio.run(explaining.explain(None, "r"))
    assert caught.value.waiting == MOST_WAITING


def test_a_full_queue_of_explanations_is_503(open_client, scorer, history, monkeypatch):
    async def full(self, transaction, request_id):
        raise QueueFullError(8, 0.8)

    monkeypatch.setattr(Explaining, "explain", full)
    client = open_client(Service(scorer, background=history.background))

    assert client.ask("POST", "/v2/explain", json=TRANSACTION).status_code == 503


@pytest.mark.parametrize("shape", [(0, len(FEATURES)), (3, 2), (12,)])
def test_a_background_of_another_shape_is_refused(scorer, shape):
    with pytest.raises(NoBackgroundError):
        Explaining(scorer, np.zeros(shape))


def test_the_first_version_still_answers_and_says_that_it_will_not_for_ever(client):
    answer = client.ask("POST", "/v1/predict", json=dict.fromkeys(FEATURES, 1.0))

    assert answer.status_code == 200
    assert answer.headers["deprecation"] == "@1780272000"
    assert answer.headers["sunset"] == "Tue, 01 Jun 2027 00:00:00 GMT"
    assert answer.json()["model_version"] == "v-test"


def test_after_its_date_the_first_version_is_gone(open_client, scorer):
    late = datetime(2030, 1, 1, tzinfo=UTC)
    client = open_client(Service(scorer, v1=Deprecation(), clock=lambda: late))

    assert client.ask("POST", "/v1/predict", json={}).status_code == 410
    assert client.predict().status_code == 200


def test_without_a_model_the_first_version_has_no_answer(open_client, empty):
    answer = open_client(Service(empty)).ask(
        "POST", "/v1/predict", json=dict.fromkeys(FEATURES, 1.0)
    )

    assert answer.status_code == 503


# ----- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2/predict", "/v2/explain"])
def test_both_ways_in_refuse_in_the_same_words(client, path, transaction):
    answer = client.ask("POST", path, json={**transaction, "amount": "10", "more": 1})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["errors"] == [
        {"type": "float_type", "loc": ["body", "amount"], "msg": "Input should be a valid number"},
        {
            "type": "extra_forbidden",
            "loc": ["body", "more"],
            "msg": "Extra inputs are not permitted",
        },
    ]


def test_a_field_that_stands_there_twice_is_told(client, transaction):
    body = b'{"amount": "x",' + json.dumps(transaction).encode()[1:]

    answer = client.ask(
        "POST", "/v2/predict", content=body, headers={"content-type": "application/json"}
    )

    assert answer.json()["errors"][0]["msg"] == "A field stands there twice"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/predict", 405), ("GET", "/nowhere", 404), ("DELETE", "/v2/explain", 405)],
)
def test_every_refusal_is_a_problem_with_the_request_id(client, method, path, status):
    answer = client.ask(method, path, headers={"x-request-id": "abc-1"})

    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "abc-1"


def test_the_methods_that_are_allowed_are_told(client):
    assert client.ask("GET", "/v2/predict").headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2/predict", "/v2/explain", "/v1/predict", "/metrics"])
def test_without_a_key_there_is_no_answer(client, path):
    answer = client.ask("POST", path, json={}, headers={"X-API-Key": ""})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"]
    assert answer.json()["request_id"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(client, path):
    assert client.ask("GET", path, headers={"X-API-Key": ""}).status_code == 200


def test_a_used_up_limit_is_429_on_both_ways_in(open_client, scorer, ring, history):
    client = open_client(
        Service(scorer, keys=ring, limit=Limit(1e-6, 2), background=history.background)
    )

    statuses = [client.predict().status_code for _ in range(3)]
    refused = client.ask("POST", "/v2/explain", json={})

    assert statuses == [200, 200, 429]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "r=0" in refused.headers["ratelimit"]


def test_what_is_left_of_a_limit_is_told(open_client, scorer, ring):
    client = open_client(Service(scorer, keys=ring, limit=Limit(1e-6, 5)))

    assert client.predict().headers["ratelimit"].startswith('"default";r=4')
    assert client.ask("GET", "/nowhere").headers["ratelimit"].startswith('"default";r=3')


def test_a_key_may_have_a_limit_of_its_own(open_client, scorer):
    key, record = generate_key("a large shop", rate=1e-6, burst=1)
    client = open_client(
        Service(scorer, keys=KeyRing([record]), limit=Limit(1.0, 100)),
        headers={"X-API-Key": key},
    )

    assert [client.predict().status_code for _ in range(2)] == [200, 429]


def test_metrics_count_against_no_limit(open_client, scorer, ring):
    client = open_client(Service(scorer, keys=ring, limit=Limit(1e-6, 1)))

    assert {client.ask("GET", "/metrics").status_code for _ in range(3)} == {200}


def test_where_no_key_is_asked_for_limits_go_by_address(open_client, scorer):
    client = open_client(Service(scorer, limit=Limit(1e-6, 1)))

    assert [client.predict().status_code for _ in range(2)] == [200, 429]


def test_a_full_queue_is_503_with_a_time_to_come_again(open_client, scorer):
    async def full(transaction, request_id):
        raise QueueFullError(10, 2.2)

    client = open_client(Service(scorer))
    scorer.score = full

    answer = client.predict()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize(
    ("path", "body"), [("/v2/predict", TRANSACTION), ("/v2/predict", {}), ("/v2/explain", {})]
)
def test_every_answer_says_how_long_it_took(client, path, body):
    told = client.ask("POST", path, json=body).headers["server-timing"]

    assert float(told.removeprefix("total;dur=")) > 0


def test_a_defect_of_ours_is_a_500_with_the_id_and_without_a_trace(open_client, scorer, caplog):
    async def broken(transaction, request_id):
        raise RuntimeError("secret detail")

    client = open_client(Service(scorer))
    scorer.score = broken

    answer = client.predict()

    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


def test_a_defect_elsewhere_is_a_500_of_the_same_kind(open_client, scorer, history, monkeypatch):
    async def broken(self, transaction, request_id):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Explaining, "explain", broken)
    client = open_client(Service(scorer, background=history.background))

    answer = client.ask("POST", "/v2/explain", json=TRANSACTION)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("explains", [True, False])
def test_it_is_told_once_that_all_is_loaded(open_client, scorer, history, explains):
    told = threading.Semaphore(0)
    background = history.background if explains else None

    open_client(Service(scorer, background=background, on_loaded=told.release))

    assert told.acquire(timeout=60)
    assert not told.acquire(blocking=False)


def test_a_batcher_that_has_been_closed_is_503(scorer, history):
    batcher = MicroBatcher(batch_predictor(scorer.holder))
    closed = Scorer(scorer.holder, StateFeatures(history.state), batcher=batcher)

    async def main():
        transport = httpx.ASGITransport(create_app(Service(closed)))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.post("/v2/predict", json=TRANSACTION)

    assert asyncio.run(main()).status_code == 503


def test_a_batcher_is_opened_and_closed_with_the_application(open_client, scorer, history):
    batcher = MicroBatcher(batch_predictor(scorer.holder))
    together = Scorer(scorer.holder, StateFeatures(history.state), batcher=batcher)
    client = open_client(Service(together))

    assert client.predict().json()["source"] == "model"
    assert "fraud_queue_rows 0.0" in client.ask("GET", "/metrics").text


# ----- what an operator sees --------------------------------------------------------------------


def test_metrics_tell_routes_statuses_and_decisions(client):
    client.predict()
    client.predict(amount="x")
    client.ask("GET", "/nowhere/4711")

    text = client.ask("GET", "/metrics").text

    assert 'fraud_http_requests_total{route="/v2/predict",status="200"} 1.0' in text
    assert 'fraud_http_requests_total{route="/v2/predict",status="422"} 1.0' in text
    assert 'fraud_http_requests_total{route="(none)",status="404"} 1.0' in text
    assert 'decision="review",degraded="false",source="model"} 1.0' in text
    assert "4711" not in text


def test_ready_is_no_without_a_model_and_yes_with_one(open_client, empty, scorer):
    assert open_client(Service(empty)).ask("GET", "/health/ready").status_code == 503
    assert open_client(Service(scorer)).ask("GET", "/health/ready").status_code == 200


def test_a_caller_that_left_gets_no_answer_and_is_counted(client):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [
        (b"content-type", b"application/json"),
        (b"x-api-key", client.http.headers["X-API-Key"].encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": "/v2/predict", "headers": headers}
    client.run(client.app({**scope, "query_string": b""}, receive, send))

    assert sent == []
    assert 'status="499"' in client.ask("GET", "/metrics").text


def test_limits_of_size_hold_on_both_ways_in(open_client, scorer, history, transaction):
    client = open_client(Service(scorer, limits=Limits(body=100), background=history.background))

    for path in ("/v2/predict", "/v2/explain"):
        assert client.ask("POST", path, json=transaction).status_code == 413


def test_a_trace_of_the_caller_is_continued_on_the_hot_path_too(open_client, scorer):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    client = open_client(
        Service(scorer, traces=Telemetry(provider)),
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
    )

    answer = client.predict()

    assert answer.headers["x-trace-id"] == trace_id
    assert {format(span.context.trace_id, "032x") for span in spans.get_finished_spans()} == {
        trace_id
    }


def test_each_request_is_one_line_of_the_access_log(open_client, scorer, tmp_path):
    file = tmp_path / "access.log"
    with file.open("w") as stream:
        lines = AccessLines(stream)
        client = open_client(Service(scorer, access=lines))
        client.predict()
        client.ask("GET", "/nowhere")
        lines.write()

    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["path"], line["status"]) for line in told] == [
        ("/v2/predict", 200),
        ("/nowhere", 404),
    ]


# ----- the document -----------------------------------------------------------------------------


def test_one_document_describes_all_and_names_the_key(client):
    document = client.ask("GET", "/openapi.json").json()

    assert {"/v2/predict", "/v2/explain", "/v1/predict", "/health/live", "/metrics"} <= set(
        document["paths"]
    )
    hot = document["paths"]["/v2/predict"]["post"]
    assert hot["security"] == [{"ApiKey": []}]
    assert hot["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "TransactionIn"
    )
    assert document["paths"]["/v1/predict"]["post"]["deprecated"] is True
    assert "security" not in document["paths"]["/health/live"]["get"]


def test_every_reference_of_the_document_leads_somewhere(client):
    document = client.ask("GET", "/openapi.json").text

    known = json.loads(document)["components"]["schemas"]
    used = {part.split('"')[0] for part in document.split("#/components/schemas/")[1:]}
    assert used <= set(known)


def test_what_the_document_calls_the_endpoint_is_the_hot_path_itself(client):
    route = next(r for r in client.app.router.routes if getattr(r, "path", "") == "/v2/predict")

    with pytest.raises(NotImplementedError):
        client.run(route.endpoint(None))


def test_a_websocket_is_none_of_ours(client):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/v2/predict", "headers": [], "query_string": b""}
    client.run(client.app(scope, receive, send))

    assert sent == ["websocket.close"]


def test_client_left_is_told_apart():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeftError):
        asyncio.run(Limits().read(receive))
