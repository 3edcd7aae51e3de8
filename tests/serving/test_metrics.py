"""Numbers for Prometheus: right, few, and of labels that no client can choose."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from companion.serving.metrics import BUCKETS, Measured, ServiceMetrics
from companion.serving.schemas import Score


def samples(metrics):
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def score(decision, source, degraded):
    return Score(1, 0.5, decision, 0.1, "v", source, degraded, None, "r")


def test_requests_are_counted_by_route_and_status():
    metrics = ServiceMetrics()
    for status in (200, 200, 422):
        metrics.request("/a", status, 0.01)

    found = samples(metrics)

    assert found["fraud_http_requests_total", ("route", "/a"), ("status", "200")] == 2
    assert found["fraud_http_requests_total", ("route", "/a"), ("status", "422")] == 1


def test_a_latency_falls_into_its_bucket_and_all_above():
    metrics = ServiceMetrics()
    metrics.request("/a", 200, 0.005)
    metrics.request("/a", 200, 99.0)

    found = samples(metrics)

    upto = [
        found["fraud_http_request_seconds_bucket", ("le", str(end)), ("route", "/a")]
        for end in (*BUCKETS, "+Inf")
    ]
    assert upto == [0, 0, 0, *[1] * (len(BUCKETS) - 3), 2]
    assert found["fraud_http_request_seconds_sum", ("route", "/a")] == pytest.approx(99.005)


def test_decisions_are_counted_with_what_they_rest_on():
    metrics = ServiceMetrics()
    metrics.scored(score("decline", "model", False))
    metrics.scored(score("review", "fallback", True))

    found = samples(metrics)

    labels = ("decision", "review"), ("degraded", "true"), ("source", "fallback")
    assert found["fraud_scores_total", *labels] == 1
    assert sum(value for name, value in found.items() if name[0] == "fraud_scores_total") == 2


def test_a_queue_is_told_only_where_there_is_one():
    assert b"fraud_queue_rows" not in ServiceMetrics().text()
    assert b"fraud_queue_rows 3.0" in ServiceMetrics(queue=lambda: 3).text()


async def never(message=None):
    raise AssertionError


def asked(app, scope):
    metrics = ServiceMetrics()
    ticks = iter([10.0, 10.5])
    measured = Measured(app, metrics, clock=lambda: next(ticks))

    async def send(message):
        pass

    asyncio.run(measured(scope, never, send))
    return samples(metrics)


def test_a_request_without_a_route_is_counted_under_one_name():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})

    found = asked(app, {"type": "http", "path": "/anything"})

    assert found["fraud_http_requests_total", ("route", "(none)"), ("status", "404")] == 1
    assert found["fraud_http_request_seconds_sum", ("route", "(none)")] == 0.5


def test_a_request_that_fails_before_its_answer_counts_as_500():
    async def app(scope, receive, send):
        raise RuntimeError

    metrics = ServiceMetrics()
    with pytest.raises(RuntimeError):
        asyncio.run(Measured(app, metrics)({"type": "http"}, never, never))

    assert ("fraud_http_requests_total", ("route", "(none)"), ("status", "500")) in samples(metrics)


def test_what_is_not_http_is_not_counted():
    async def app(scope, receive, send):
        pass

    assert not asked(app, {"type": "lifespan"})
