"""The service under attack: what a client can send to break, fill or hold it."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from companion.resilience.limiting import Limit
from companion.serving.api import Service, create_app
from companion.serving.guards import Limits
from companion.serving.jobs import open_jobs
from companion.serving.keys import KeyRing, generate_key
from companion.serving.preparing import History
from companion.serving.scorer import Scorer, StateFeatures, hold_model
from companion.serving.wire import guarded
from companion.transactions import simulate

KEY, RECORD = generate_key("an attacker with a key")
GOOD = {
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
BODY = json.dumps(GOOD).encode()
HEADER_SECONDS, BODY_SECONDS = 0.4, 0.4
MOST_BODY = 64 * 1024


class Even:
    """A coin."""

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    history = History.of(simulate(400, seed=3), ends=datetime(2026, 3, 1, tzinfo=UTC))
    jobs = open_jobs(f"sqlite:///{tmp_path_factory.mktemp('jobs')}/jobs.db")
    scorer = Scorer(hold_model(Even(), version="even"), StateFeatures(history.state))
    service = Service(
        scorer,
        keys=KeyRing([RECORD]),
        limit=Limit(1e6, 1e6),
        limits=Limits(body=MOST_BODY, seconds=BODY_SECONDS),
        upload_limits=Limits(body=MOST_BODY, seconds=BODY_SECONDS),
        jobs=jobs,
        background=history.background[:1],
    )
    yield create_app(service)
    jobs.close()


@pytest.fixture(scope="module")
def address(app):
    """The application behind a real uvicorn, in a thread."""
    config = uvicorn.Config(
        app,
        port=0,
        http=guarded(seconds=HEADER_SECONDS, size=8_192),
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    url = f"http://{host}:{port}/v2/explain"
    # The first one waits for libraries; those that attack have little patience.
    httpx.post(url, json=GOOD, headers={"X-API-Key": KEY}, timeout=60, trust_env=False)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    thread.join()


def exchange(address, *pieces, pause=0.0, patience=5.0):
    """Send `pieces`, `pause` seconds apart, and give all that comes back until the end."""
    with socket.create_connection(address, timeout=patience) as client:
        answer = b""
        try:
            for piece in pieces:
                client.sendall(piece)
                if pause:
                    time.sleep(pause)
            while received := client.recv(65_536):
                answer += received
        except (ConnectionError, TimeoutError):
            pass
        return answer


def head(*headers, path="/v2/predict", length=None):
    length = len(BODY) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "host: x", f"x-api-key: {KEY}", "connection: close"]
    lines += ["content-type: application/json", f"content-length: {length}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# ----- all that the OpenAPI document promises, by schemathesis ----------------------------------

PATHS = [
    "/v2/predict",
    "/v2/explain",
    "/v2/batches",
    "/v2/batches/{job_id}",
    "/v2/batches/{job_id}/cancel",
    "/v2/batches/{job_id}/results",
    "/v2/batches/{job_id}/rejects",
    "/v1/predict",
    "/health/live",
    "/health/ready",
    "/health/startup",
    "/metrics",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_request_finds_a_5xx_or_an_answer_that_the_document_does_not_promise(address, path):
    host, port = address
    described = schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")
    operations = [found.ok() for found in described.include(path=path).get_all_operations()]
    # Not every file is a table of transactions.
    excluded = [positive_data_acceptance] if path == "/v2/batches" else []
    assert operations

    for operation in operations:
        attack(operation, GenerationMode.POSITIVE, excluded)
        with contextlib.suppress(Unsatisfiable):  # nothing that it takes can be wrong
            attack(operation, GenerationMode.NEGATIVE, excluded)


def attack(operation, mode, excluded):
    @settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attacked(case):
        if mode is GenerationMode.POSITIVE:
            make_valid(case)
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=excluded)

    attacked()


def make_valid(case):
    """What JSON Schema cannot say: 1.0 is no whole number here, and times are of this century."""
    if isinstance(case.body, dict) and "time" in case.body:
        case.body = {
            name: int(value) if name.endswith("_id") else value for name, value in case.body.items()
        } | {"time": GOOD["time"]}


def test_every_path_of_the_document_is_attacked(app):
    assert sorted(app.openapi()["paths"]) == sorted(PATHS)


# ----- bodies -----------------------------------------------------------------------------------


def sent(app, *, body=BODY, headers=None, path="/v2/predict"):
    async def send():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        given = {"X-API-Key": KEY, "Content-Type": "application/json", **(headers or {})}
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post(path, content=body, headers=given)

    return asyncio.run(send())


@pytest.mark.parametrize("path", ["/v2/predict", "/v2/explain"])
@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b"80.5", b"NaN"),
        BODY.replace(b"80.5", b"1e999"),
        BODY.replace(b"80.5", b"1" * 5_000),
        b"[" * 30_000,
        b'{"a":' * 10_000,
        BODY.replace(b'"fuel"', b"[" * 30_000),
        b'"\xff\xfe"',
        b'{"\xff": 1}',
        BODY.replace(b"fuel", b"\\ud800"),
        b"",
        b"null",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_transaction_is_422_in_few_words(app, path, body):
    answer = sent(app, body=body, path=path)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 4_000


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_a_body_of_another_type_is_415(app, kind):
    assert sent(app, headers={"Content-Type": kind}).status_code == 415


def test_a_field_name_made_to_hurt_is_not_repeated(app):
    evil = "<script>alert(1)</script>"

    answer = sent(app, body=json.dumps({**GOOD, evil: 1}).encode())

    assert answer.status_code == 422
    assert evil not in answer.text


def test_a_thousand_unknown_fields_get_a_short_answer(app):
    body = json.dumps({**GOOD, **{f"f{number}": 1 for number in range(1_000)}}).encode()

    assert len(sent(app, body=body).content) < 8_000


def test_a_hundred_megabytes_are_refused_before_they_are_read(app):
    read = 0

    async def endless():
        nonlocal read
        while read < 100 * 2**20:
            read += 16_384
            yield b" " * 16_384

    answer = sent(app, body=endless())

    assert answer.status_code == 413
    assert read <= 2 * MOST_BODY


def test_a_body_that_only_promises_to_be_large_is_refused(address):
    answer = exchange(address, head(length=10**12))

    assert answer.startswith(b"HTTP/1.1 413")


# ----- headers and time, against a real server --------------------------------------------------


def test_a_transaction_is_scored_by_the_real_server(address):
    answer = exchange(address, head() + BODY)

    assert answer.startswith(b"HTTP/1.1 200")


def test_a_header_of_100_kb_is_431(address):
    answer = exchange(address, head("x-padding: " + "a" * 100_000) + BODY)

    assert answer.startswith(b"HTTP/1.1 431")


def test_a_client_that_sends_its_headers_byte_by_byte_is_sent_away(address):
    begun = time.monotonic()

    answer = exchange(address, *(bytes([byte]) for byte in head()[:12]), pause=0.1)

    assert answer.startswith(b"HTTP/1.1 408") or not answer
    assert time.monotonic() - begun < 12 * 0.1 + 4 * HEADER_SECONDS


def test_a_client_that_says_nothing_is_sent_away(address):
    answer = exchange(address, patience=20 * HEADER_SECONDS)

    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/v2/predict", "/v2/explain"])
def test_a_client_that_promises_a_body_and_sends_none_is_sent_away(address, path):
    answer = exchange(address, head(path=path) + BODY[:5], patience=20 * BODY_SECONDS)

    assert answer.startswith(b"HTTP/1.1 408")


def test_others_are_served_while_many_dawdle(address):
    dawdlers = [socket.create_connection(address) for _ in range(100)]
    try:
        for dawdler in dawdlers:
            dawdler.sendall(b"POST /v2/pred")
        assert exchange(address, head() + BODY).startswith(b"HTTP/1.1 200")
    finally:
        for dawdler in dawdlers:
            dawdler.close()


@pytest.mark.parametrize(
    "header",
    ["content-length: -1", "transfer-encoding: chunked", "x-bad\x00: 1", "content-length: 5"],
)
def test_a_request_that_two_servers_could_read_differently_is_refused(address, header):
    answer = exchange(address, head(header) + BODY)

    assert answer.startswith(b"HTTP/1.1 400") or not answer


# ----- keys -------------------------------------------------------------------------------------


def test_ten_thousand_clients_each_have_a_key_and_a_limit_of_their_own(app):
    made = [generate_key(f"client {number}") for number in range(10_000)]
    scorer = Scorer(hold_model(Even(), version="even"), StateFeatures(_state()))
    ring = KeyRing(record for _, record in made)
    crowded = create_app(Service(scorer, keys=ring, limit=Limit(1e-6, 1)))
    statuses = []

    async def one(key):
        async def receive():
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"x-api-key", key.encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v2/predict", "headers": headers}
        await crowded({**scope, "query_string": b"", "client": ("10.0.0.1", 1)}, receive, send)

    async def all_of_them():
        for key, _ in made[::10]:
            await one(key)
        await one(made[0][0])

    asyncio.run(all_of_them())

    assert statuses == [200] * 1_000 + [429]


NEARLY_RIGHT = {
    "empty": "",
    "a letter": "x",
    "too short": KEY[:-1],
    "too long": KEY + "A",
    "in capitals": KEY.upper(),
    "another's secret": "fsk_" + "0" * 12 + KEY[16:],
    "beyond ASCII": KEY + "é",
    "endless": "a" * 9000,
}


# Named: the key is another one in each process, and all have to see the same tests.
@pytest.mark.parametrize("key", NEARLY_RIGHT.values(), ids=NEARLY_RIGHT)
def test_a_key_that_is_nearly_right_is_not(app, key):
    answer = sent(app, headers={"X-API-Key": key.encode("latin-1")})

    assert answer.status_code == 401
    assert KEY not in answer.text


def test_the_body_of_a_stranger_is_not_even_read(app):
    async def never():
        raise AssertionError("it was read")
        yield b""

    assert sent(app, body=never(), headers={"X-API-Key": "x"}).status_code == 401


def _state():
    return History.of(simulate(50, seed=3, fraud_rate=0.02)).state


def test_the_document_promises_that_nothing_unknown_is_taken(app):
    described = app.openapi()["components"]["schemas"]["TransactionIn"]

    assert described["additionalProperties"] is False
    assert set(described["required"]) == set(GOOD)
    assert described["properties"]["customer_id"]["maximum"] == 2**63 - 1
