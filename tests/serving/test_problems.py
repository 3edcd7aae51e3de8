"""Every error is a problem by RFC 9457: named, quotable, and silent about what was sent."""

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from companion.serving.problems import (
    MEDIA_TYPE,
    body_items,
    documented,
    error_items,
    install,
    problem,
    problem_response,
)
from companion.serving.schemas import ProblemOut, TransactionIn
from companion.serving.tracing import RequestId


class Number(BaseModel):
    number: float


@pytest.fixture(scope="module")
def app():
    app = FastAPI()
    install(app)

    @app.post("/number")
    async def number(body: Number) -> float:
        return body.number

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", headers={"x-spout": "1"})

    @app.get("/odd")
    async def odd() -> None:
        raise HTTPException(499, {"not": "text"})

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret")

    return RequestId(app)


def ask(app, method, path, **request):
    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers={"x-request-id": "r-7"}, **request)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/teapot", 418),
        ("GET", "/nowhere", 404),
        ("GET", "/number", 405),
        ("GET", "/broken", 500),
        ("POST", "/number", 422),
        ("GET", "/odd", 499),
    ],
)
def test_every_error_is_a_problem_with_the_request_id(app, method, path, status):
    answer = ask(app, method, path)

    told = ProblemOut.model_validate_json(answer.content)
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (answer.status_code, told.status, told.request_id) == (status, status, "r-7")
    assert answer.headers["x-request-id"] == "r-7"


def test_a_refusal_keeps_its_words_and_its_headers(app):
    answer = ask(app, "GET", "/teapot")

    assert answer.json()["detail"] == "short and stout"
    assert answer.headers["x-spout"] == "1"


def test_nan_is_refused_and_not_repeated(app):
    answer = ask(app, "POST", "/number", content=b'{"number": "NaN, and a password"}')

    assert answer.status_code == 422
    assert "password" not in answer.text
    assert set(answer.json()["errors"][0]) == {"type", "loc", "msg"}


@pytest.mark.parametrize("body", [b'{"number": "\xff"}', b"[" * 100_000, b"1" * 10_000])
def test_what_python_cannot_read_as_json_is_the_clients_mistake_like_any_other(app, body):
    answer = ask(app, "POST", "/number", content=body)

    assert answer.status_code == 422


def test_a_defect_is_logged_and_not_told(app, caplog):
    answer = ask(app, "GET", "/broken")

    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_outside_of_a_request_there_is_no_id():
    assert json.loads(problem(404, "Not Found"))["request_id"] == ""


def test_a_problem_may_say_more():
    told = json.loads(problem_response(409, "Conflict", "Twice", job="7").body)

    assert (told["job"], told["detail"], told["type"]) == ("7", "Twice", "about:blank")


@pytest.mark.parametrize("name", ["<b>", "a" * 65, "a b", "é", ""])
def test_a_name_that_is_none_is_not_shown(name):
    items = error_items([{"type": "extra", "loc": ("body", name, 3), "msg": "m"}])

    assert items[0]["loc"] == ["body", "?", 3]


def test_of_many_errors_only_so_many_are_told():
    assert len(error_items([{"type": "t", "loc": (), "msg": "m"}] * 1_000)) == 50


def test_a_body_is_refused_in_the_words_of_the_contract():
    items = body_items(TransactionIn, b"[]")

    assert items[0]["loc"] == ["body"]


def test_a_status_that_nobody_registered_has_a_title_too():
    assert documented(ProblemOut, [499])[499]["description"] == "Error"
