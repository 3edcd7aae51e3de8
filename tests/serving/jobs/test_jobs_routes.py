"""Batches over HTTP: what is answered, to whom, and what is left on the disk."""

from __future__ import annotations

import asyncio
import gzip
import io

import httpx
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from companion.serving import problems
from companion.serving.jobs import Jobs, JobsUnavailableError, Worker
from companion.serving.jobs.homes.sqlite import SqliteHome
from companion.serving.jobs.routes import CSV, PARQUET, batch_router
from companion.serving.jobs.uploads import Uploads

CSV_HEADERS = {"Content-Type": CSV}


@pytest.fixture
def jobs(tmp_path):
    home = SqliteHome(tmp_path / "jobs.db")
    yield Jobs(home, Uploads(tmp_path / "uploads", max_bytes=200_000), most_rejects=50)
    home.close()


@pytest.fixture
def told():
    return []


@pytest.fixture
def app(jobs, told):
    app = FastAPI()
    problems.install(app)
    app.include_router(
        batch_router(
            jobs,
            owner_of=lambda request: request.headers.get("x-owner", ""),
            on_accepted=told.append,
        )
    )
    return app


@pytest.fixture
def ask(app):
    """One request to the application, as a client would make it."""

    def send(method, path, **named):
        async def exchange():
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **named)

        return asyncio.run(exchange())

    return send


@pytest.fixture(scope="module")
def batch(transactions):
    return transactions.head(200).to_csv(index=False).encode()


def submitted(ask, batch, **headers):
    return ask("POST", "/v2/batches", content=batch, headers={**CSV_HEADERS, **headers})


def work(jobs):
    return Worker(jobs, lambda frame: frame["amount"] / 1e6, chunk_rows=50).run_one()


def is_problem(answer, status):
    return (
        answer.status_code == answer.json()["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
    )


def test_an_upload_is_answered_with_202_a_place_and_a_stored_job(ask, batch, jobs, told):
    answer = submitted(ask, batch)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == f"/v2/batches/{body['id']}"
    assert (body["state"], body["progress"], body["rows"]) == ("queued", 0.0, None)
    assert jobs.get(body["id"]).bytes == len(batch)
    assert [job.id for job in told] == [body["id"]]


def test_progress_results_and_rejects_after_the_work(ask, batch, jobs):
    place = submitted(ask, batch + b"x,y\n").headers["location"]
    work(jobs)
    body = ask("GET", place).json()
    assert (body["state"], body["progress"], body["scored"], body["rejected"]) == (
        "done",
        1.0,
        200,
        1,
    )
    lines = ask("GET", f"{place}/results").text.splitlines()
    assert lines[0] == "row,transaction_id,probability"
    assert len(lines) == 201
    rejects = ask("GET", f"{place}/rejects")
    assert rejects.headers["rejected-rows"] == "1"
    assert rejects.text.splitlines()[1].startswith("201,")


def test_results_come_as_parquet_to_whom_asks_for_it(ask, batch, jobs):
    place = submitted(ask, batch).headers["location"]
    work(jobs)
    answer = ask("GET", f"{place}/results", headers={"Accept": PARQUET})
    assert answer.headers["content-type"] == PARQUET
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 200


def test_a_parquet_is_taken_as_well(ask, jobs, parquet_file):
    answer = ask(
        "POST",
        "/v2/batches",
        content=parquet_file.read_bytes(),
        headers={"Content-Type": PARQUET},
    )
    assert answer.status_code == 202
    assert work(jobs).job.scored == 1000


def test_the_same_key_gives_the_same_job_and_announces_it_once(ask, batch, told):
    first = submitted(ask, batch, **{"Idempotency-Key": "k"})
    again = submitted(ask, batch, **{"Idempotency-Key": "k"})
    assert first.json() == again.json()
    assert len(told) == 1


def test_the_same_key_with_another_file_is_a_problem(ask, batch):
    first = submitted(ask, batch, **{"Idempotency-Key": "k"})
    answer = submitted(ask, batch + b"\n", **{"Idempotency-Key": "k"})
    assert is_problem(answer, 422)
    assert answer.json()["job_id"] == first.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
def test_a_key_that_cannot_be_one_is_a_problem(ask, batch, key):
    assert is_problem(submitted(ask, batch, **{"Idempotency-Key": key}), 422)


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data; boundary=x", ""])
def test_another_content_type_is_unsupported(ask, batch, media_type):
    answer = ask("POST", "/v2/batches", content=batch, headers={"Content-Type": media_type})
    assert is_problem(answer, 415)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"a,b\n" * 100, mtime=0), b"PAR1" + b"x" * 50, b""]
)
def test_a_body_that_is_something_else_is_unsupported_and_not_kept(ask, jobs, content):
    assert is_problem(submitted(ask, content), 415)
    assert list(jobs.uploads.folder.iterdir()) == []


def test_a_content_coding_is_unsupported(ask, batch):
    answer = submitted(ask, gzip.compress(batch, mtime=0), **{"Content-Encoding": "gzip"})
    assert is_problem(answer, 415)


def test_a_body_that_says_it_is_too_large_is_not_even_read(ask, jobs):
    assert is_problem(submitted(ask, b"x" * 200_001), 413)
    assert list(jobs.uploads.folder.iterdir()) == []


def test_a_body_that_does_not_say_so_is_refused_at_the_limit(ask, jobs):
    async def endless():
        while True:
            yield b"x" * 50_000

    assert is_problem(submitted(ask, endless()), 413)
    assert list(jobs.uploads.folder.iterdir()) == []


def raw_post(app, receive):
    """Send a request whose body comes from `receive`; the status of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/batches",
        "raw_path": b"/v2/batches",
        "query_string": b"",
        "headers": [(b"content-type", CSV.encode())],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def test_an_upload_that_is_cut_off_leaves_nothing(app, jobs):
    pieces = [
        {"type": "http.request", "body": b"a,b\n", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return pieces.pop(0)

    assert raw_post(app, receive) == 400
    assert list(jobs.uploads.folder.iterdir()) == []
    assert jobs.latest() == []


def test_an_upload_that_never_ends_is_ended(jobs):
    app = FastAPI()
    app.include_router(batch_router(jobs, upload_timeout=0.01))

    async def receive():
        await asyncio.Event().wait()

    assert raw_post(app, receive) == 408
    assert list(jobs.uploads.folder.iterdir()) == []


def test_results_of_a_job_that_is_not_over_are_a_conflict(ask, batch):
    place = submitted(ask, batch).headers["location"]
    answer = ask("GET", f"{place}/results")
    assert is_problem(answer, 409)
    assert answer.headers["retry-after"] == "1"


def test_a_cancelled_job_is_cancelled_and_twice_is_once(ask, batch):
    place = submitted(ask, batch).headers["location"]
    for _ in range(2):
        answer = ask("POST", f"{place}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert ask("GET", f"{place}/results").text == "row,transaction_id,probability\n"


PATHS = [("GET", ""), ("POST", "/cancel"), ("GET", "/results"), ("GET", "/rejects")]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_an_unknown_job_is_not_found(ask, method, path):
    assert is_problem(ask(method, f"/v2/batches/{'0' * 32}{path}"), 404)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_job_of_somebody_else_is_not_found_either(ask, batch, jobs, method, path):
    place = submitted(ask, batch, **{"X-Owner": "a"}).headers["location"]
    assert is_problem(ask(method, f"{place}{path}", headers={"X-Owner": "b"}), 404)
    assert ask("GET", place, headers={"X-Owner": "a"}).json()["state"] == "queued"


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_what_is_no_job_id_is_a_problem(ask, method, path):
    assert is_problem(ask(method, f"/v2/batches/etc{path}"), 422)


def test_a_store_that_does_not_answer_is_503_everywhere(ask, batch, jobs, monkeypatch):
    place = submitted(ask, batch).headers["location"]

    def down(*args, **named):
        raise JobsUnavailableError("store", "down")

    monkeypatch.setattr(jobs.home, "get", down)
    monkeypatch.setattr(jobs.home, "insert", down)
    assert is_problem(submitted(ask, batch), 503)
    for method, path in PATHS:
        assert is_problem(ask(method, f"{place}{path}"), 503)


def test_an_executor_that_cannot_be_told_does_not_cost_the_job(jobs, batch, caplog):
    def no_broker(job):
        raise ConnectionError("no Redis")

    app = FastAPI()
    app.include_router(batch_router(jobs, on_accepted=no_broker))

    async def exchange():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v2/batches", content=batch, headers=CSV_HEADERS)

    answer = asyncio.run(exchange())
    assert answer.status_code == 202
    assert jobs.get(answer.json()["id"]).state == "queued"
    assert "nobody could be told" in caplog.text


def test_a_failure_tells_its_type_and_no_more(ask, jobs):
    place = submitted(ask, b"secret,columns\n1,2\n").headers["location"]
    work(jobs)
    answer = ask("GET", place)
    assert (answer.json()["state"], answer.json()["error"]) == ("failed", "MissingColumnsError")
    assert "Traceback" not in answer.text


def test_the_document_describes_bodies_and_problems(app):
    post = app.openapi()["paths"]["/v2/batches"]["post"]
    assert set(post["requestBody"]["content"]) == {CSV, PARQUET}
    assert {"202", "413", "415", "422", "503"} <= set(post["responses"])
