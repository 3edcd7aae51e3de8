"""An old version on its way out: marked on every answer, gone after the date."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from companion.serving.versions import DeprecatedVersion

DEPRECATED = datetime(2026, 6, 1, tzinfo=UTC)
SUNSET = datetime(2027, 6, 1, tzinfo=UTC)
SETTINGS = {
    "deprecated_at": DEPRECATED,
    "sunset_at": SUNSET,
    "successor": "/v2/predict",
    "guide": "https://example.com/guides/v2",
}
MARKS = {
    "deprecation": "@1780272000",
    "sunset": "Tue, 01 Jun 2027 00:00:00 GMT",
    "link": '<https://example.com/guides/v2>; rel="deprecation", '
    '</v2/predict>; rel="successor-version"',
}


def service():
    app = FastAPI()

    @app.post("/{version}/predict")
    async def predict(version: str, amount: float) -> float:
        return amount

    @app.get("/v1/missing")
    async def missing() -> None:
        raise HTTPException(404)

    @app.get("/v1/breaks")
    async def breaks() -> None:
        raise ZeroDivisionError

    return app


def ask(method, path, *, app=None, now=DEPRECATED, root_path="", **settings):
    asgi = DeprecatedVersion(app or service(), **SETTINGS | settings, clock=lambda: now)

    async def run():
        transport = httpx.ASGITransport(asgi, raise_app_exceptions=False, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path)

    return asyncio.run(run())


def marks(response):
    return {name: response.headers[name] for name in MARKS if name in response.headers}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/predict?amount=1", 200),
        ("POST", "/v1/predict?amount=x", 422),
        ("GET", "/v1/missing", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/predict", 405),
        ("GET", "/v1/breaks", 500),
        ("GET", "/v1", 404),
    ],
)
def test_every_answer_of_the_old_version_is_marked(method, path, status):
    response = ask(method, path)
    assert (response.status_code, marks(response)) == (status, MARKS)


@pytest.mark.parametrize("path", ["/v2/predict", "/v10/predict", "/v1beta/predict", "/x/v1/y", "/"])
@pytest.mark.parametrize("now", [DEPRECATED, SUNSET])
def test_other_paths_pass_untouched(path, now):
    response = ask("POST", f"{path}?amount=1", now=now)
    assert response.status_code != 410
    assert marks(response) == {}


def test_it_answers_until_the_last_moment():
    now = SUNSET - timedelta(microseconds=1)
    assert ask("POST", "/v1/predict?amount=1", now=now).status_code == 200


@pytest.mark.parametrize("path", ["/v1/predict?amount=1", "/v1/nothing", "/v1"])
def test_from_the_date_on_everything_is_gone_and_says_where_to_go(path):
    response = ask("POST", path, now=SUNSET)
    assert response.status_code == 410
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["title"], problem["status"]) == ("Gone", 410)
    assert problem["successor"] == "/v2/predict"
    assert problem["detail"] == "/v1 stopped answering at 2027-06-01T00:00:00+00:00"
    assert marks(response) == MARKS


def test_the_application_is_not_asked_any_more():
    async def app(scope, receive, send):
        raise AssertionError("asked")

    assert ask("GET", "/v1/predict", app=app, now=SUNSET).status_code == 410


def test_the_date_is_told_in_greenwich_time_wherever_it_was_set():
    sunset = datetime(2027, 6, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert ask("GET", "/v1", sunset_at=sunset).headers["sunset"] == MARKS["sunset"]


def test_a_path_behind_a_proxy_prefix_is_recognised():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    assert marks(ask("GET", "/api/v1/predict", app=app, root_path="/api")) == MARKS
    assert marks(ask("GET", "/api/v10/predict", app=app, root_path="/api")) == {}
    assert seen == ["/api/v1/predict", "/api/v10/predict"]


def test_headers_of_the_application_stay_and_its_links_are_added_to():
    async def app(scope, receive, send):
        headers = [(b"link", b'</terms>; rel="license"'), (b"deprecation", b"true")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    headers = ask("GET", "/v1", app=app).headers
    assert headers.get_list("link") == ['</terms>; rel="license"', MARKS["link"]]
    assert headers.get_list("deprecation") == [MARKS["deprecation"]]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_anything_but_http_passes_through(kind):
    passed = []

    async def app(scope, receive, send):
        passed.append((scope, receive, send))

    outside = DeprecatedVersion(app, **SETTINGS, clock=lambda: SUNSET)
    scope, receive, send = {"type": kind, "path": "/v1/x"}, object(), object()
    asyncio.run(outside(scope, receive, send))
    assert passed == [(scope, receive, send)]


def test_by_default_the_clock_is_the_real_one():
    past = datetime(2020, 1, 1, tzinfo=UTC)
    asgi = DeprecatedVersion(service(), **SETTINGS | {"deprecated_at": past, "sunset_at": past})

    async def run():
        transport = httpx.ASGITransport(asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return (await client.get("/v1")).status_code

    assert asyncio.run(run()) == 410


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"prefix": "v1"}, "prefix"),
        ({"prefix": "/v1/"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"deprecated_at": datetime(2026, 6, 1)}, "deprecated_at"),
        ({"sunset_at": datetime(2027, 6, 1)}, "sunset_at"),
        (
            {"sunset_at": DEPRECATED - timedelta(seconds=1)},
            "sunset_at is not before deprecated_at,",
        ),
        ({"successor": ""}, "successor"),
        ({"successor": "/v2\r\nset-cookie: a=b"}, "successor"),
        ({"guide": "/v1>; rel=x, <"}, "guide"),
        ({"guide": "/führer"}, "guide"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, names):
    with pytest.raises(ValueError, match=f"^{names}"):
        DeprecatedVersion(service(), **SETTINGS | settings)
