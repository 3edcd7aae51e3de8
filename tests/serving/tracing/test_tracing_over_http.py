"""A real uvicorn: every line of its log is JSON, whatever its clients and its endpoints do."""

import json
import socket
import sys

import httpx
import pytest

from companion.instruments import SubprocessServer, free_port

APP = """
import logging, sys
from fastapi import FastAPI
from companion.serving.tracing import AccessLines, AccessLog, RequestId, ServerTiming, json_logging
from companion.serving.tracing import span

json_logging(sys.stdout)
service = FastAPI()
lines = AccessLines(sys.stdout, every=0.01).__enter__()

@service.get("/score/{customer}")
def score(customer: str):
    with span("model"):
        logging.getLogger("scoring").info("scoring %s", customer)

@service.get("/broken")
async def broken():
    raise RuntimeError("first line\\nsecond line")

app = RequestId(AccessLog(ServerTiming(service), lines))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server, its address, and what it logged when it had answered everything below."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "traced_service.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "traced_service:app", "--port", str(port)]
    with SubprocessServer(command, f"http://127.0.0.1:{port}/docs", cwd=folder) as server:
        yield server, port


def raw(port, head):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_answers_carry_id_and_timing_and_every_line_of_the_log_is_json(server):
    server, port = server
    base = f"http://127.0.0.1:{port}"
    good = httpx.get(f"{base}/score/C1%0Aforged%C2%85", headers={"X-Request-ID": "good-1"})
    assert good.headers["x-request-id"] == "good-1"
    assert "model;dur=" in good.headers["server-timing"]

    broken = httpx.get(f"{base}/broken", headers={"X-Request-ID": "broken-1"})
    assert (broken.status_code, broken.headers["x-request-id"]) == (500, "broken-1")

    folded = (
        b"GET /score/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-ID: a\x85b\r\n\r\n"
    )
    assert b"a\x85b" not in raw(port, folded)
    assert raw(port, b"GET / HTTP/1.1\r\nX-Request-ID: a\nforged\r\n\r\n")
    server.terminate()

    told = [json.loads(line) for line in server.log().splitlines()]
    assert {"scoring C1\nforged\x85"} <= {line.get("message") for line in told}
    by_logger = {(line["logger"], line.get("request_id")) for line in told}
    assert ("scoring", "good-1") in by_logger
    assert ("access", "good-1") in by_logger
    assert ("uvicorn.access", "good-1") in by_logger
    (crash,) = [line for line in told if "exception.type" in line]
    assert crash["logger"] == "uvicorn.error"
    assert crash["request_id"] == "broken-1"
    assert "second line" in crash["exception.message"]
