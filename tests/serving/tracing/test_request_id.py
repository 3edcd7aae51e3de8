"""One id for each request: safe to log, seen everywhere inside, on every answer."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from companion.serving.tracing import (
    RequestId,
    aforward_request_id,
    current_request_id,
    forward_request_id,
    new_request_id,
    request_id_of,
)

GENERATED = re.compile("[0-9a-f]{32}").fullmatch
LATER = []


def service():
    app = FastAPI()

    @app.get("/async")
    async def in_a_coroutine():
        await asyncio.sleep(0)
        return current_request_id()

    @app.get("/sync")
    def in_a_thread():
        return current_request_id()

    @app.get("/number/{number}")
    async def number(number: int):
        return number

    @app.get("/stream")
    async def stream():
        async def parts():
            yield current_request_id()

        return StreamingResponse(parts())

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        tasks.add_task(lambda: LATER.append(current_request_id()))

    @app.get("/broken")
    async def broken():
        raise RuntimeError("unhandled")

    return app


APP = RequestId(service())


def respond(status=200, headers=()):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": current_request_id().encode()})

    return app


def test_a_good_id_is_taken_over(get):
    response = get(APP, "/async", {"X-Request-ID": "order-7_A"})
    assert response.headers["x-request-id"] == response.json() == "order-7_A"


@pytest.mark.parametrize("length", [1, 64])
def test_ids_of_one_to_64_characters_are_taken_over(get, length):
    assert get(APP, "/async", {"X-Request-ID": "a" * length}).json() == "a" * length


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b" ",
        b"a b",
        b"a" * 65,
        b"a" * 100_000,
        b"a] Prediction: 0.01 [b",
        b"a\nb",
        b"a\n",
        b"a\x85b",
        b"a\x1b[31m",
        b"a\x00",
        "é".encode(),
        b"\xff\xfe",
        b"a,b",
    ],
)
def test_anything_else_is_replaced_by_a_new_id(get, bad):
    response = get(APP, "/async", {b"X-Request-ID": bad})
    assert GENERATED(response.headers["x-request-id"])
    assert response.json() == response.headers["x-request-id"]


def test_a_request_without_an_id_gets_a_new_one_each_time(get):
    ids = {get(APP, "/async").json() for _ in range(50)}
    assert len(ids) == 50
    assert all(map(GENERATED, ids))


def test_of_two_ids_the_first_counts(get):
    headers = [("x-request-id", "first"), ("x-request-id", "second")]

    async def app(scope, receive, send):
        scope = {**scope, "headers": [(n.encode(), v.encode()) for n, v in headers]}
        await RequestId(respond())(scope, receive, send)

    assert get(app).text == "first"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/async", 200), ("/nowhere", 404), ("/number/x", 422), ("/broken", 500)],
)
def test_every_answer_carries_it(get, path, status):
    response = get(APP, path, {"X-Request-ID": "abc"})
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["abc"]


def test_a_handler_of_unexpected_errors_sees_it(get):
    app = service()

    @app.exception_handler(Exception)
    async def problem(request: Request, error: Exception):
        return JSONResponse({"request_id": current_request_id()}, status_code=500)

    response = get(RequestId(app), "/broken", {"X-Request-ID": "abc"})
    assert response.json() == {"request_id": "abc"}


def test_an_application_that_raises_before_it_answers_is_answered_for(get):
    async def app(scope, receive, send):
        raise RuntimeError("secret")

    response = get(RequestId(app), headers={"X-Request-ID": "abc"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == response.json()["request_id"] == "abc"
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text


async def nothing():
    raise AssertionError("nobody asked for the body")


SCOPE = {"type": "http", "headers": []}


def test_the_servers_own_log_still_gets_the_exception():
    async def app(scope, receive, send):
        raise RuntimeError("unhandled")

    async def run():
        sent = []

        async def send(message):
            sent.append(message["type"])

        with pytest.raises(RuntimeError, match="unhandled"):
            await RequestId(app)(SCOPE, nothing, send)
        return sent

    assert asyncio.run(run()) == ["http.response.start", "http.response.body"]


def test_an_exception_that_goes_on_carries_the_id_of_its_request():
    error = KeyError("the same object each time")
    assert request_id_of(error) == ""

    async def app(scope, receive, send):
        raise error

    async def drop(message):
        pass

    for name in ("n1", "n2"):
        with pytest.raises(KeyError):
            asyncio.run(RequestId(app, new_id=lambda name=name: name)(SCOPE, nothing, drop))
        assert request_id_of(error) == name


def test_an_application_that_raises_in_the_middle_of_its_answer_sends_no_second_one():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        raise RuntimeError("half-way")

    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        with pytest.raises(RuntimeError, match="half-way"):
            await RequestId(app, new_id=lambda: "n1")(SCOPE, nothing, send)
        return sent

    assert asyncio.run(run()) == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"n1")]}
    ]


def test_a_cancelled_request_is_not_answered():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def run():
        task = asyncio.create_task(RequestId(app)(SCOPE, nothing, nothing))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_request_there_is_no_id_any_more(fails):
    async def app(scope, receive, send):
        assert current_request_id() == "n1"
        if fails:
            raise RuntimeError

    async def drop(message):
        pass

    async def run():
        middleware = RequestId(app, new_id=lambda: "n1")
        if fails:
            with pytest.raises(RuntimeError):
                await middleware(SCOPE, nothing, drop)
        else:
            await middleware(SCOPE, nothing, drop)
        return current_request_id()

    assert asyncio.run(run()) == ""


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_a_hundred_requests_at_once_keep_their_own(exchange, path):
    requests = [("GET", path, {"X-Request-ID": f"n{i}"}) for i in range(100)]
    responses = exchange(APP, *requests)
    assert [r.json() for r in responses] == [f"n{i}" for i in range(100)]
    assert [r.headers["x-request-id"] for r in responses] == [f"n{i}" for i in range(100)]


def test_a_streaming_answer_sees_it(get):
    assert get(APP, "/stream", {"X-Request-ID": "abc"}).text == "abc"


def test_a_background_task_sees_it(get):
    LATER.clear()
    get(APP, "/background", {"X-Request-ID": "abc"})
    assert LATER == ["abc"]


def test_a_thread_of_your_own_does_not_see_it(get):
    async def app(scope, receive, send):
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(current_request_id).result()
        await respond(headers=[(b"x-seen", seen.encode())])(scope, receive, send)

    assert get(RequestId(app), headers={"X-Request-ID": "abc"}).headers["x-seen"] == ""


def test_an_id_that_the_application_sends_is_replaced(get):
    app = RequestId(respond(headers=[(b"x-request-id", b"theirs"), (b"x-other", b"kept")]))
    response = get(app, headers={"X-Request-ID": "ours"})
    assert response.headers.get_list("x-request-id") == ["ours"]
    assert response.headers["x-other"] == "kept"


def test_a_message_that_the_application_sends_again_is_left_as_it_is(get):
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    ids = [get(RequestId(app), headers={"X-Request-ID": i}).headers["x-request-id"] for i in "ab"]
    assert ids == ["a", "b"]
    assert start["headers"] == []


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass_untouched(kind):
    async def run():
        seen = []

        async def app(*args):
            seen.append(args)
            assert current_request_id() == ""

        scope = {"type": kind}
        await RequestId(app)(scope, nothing, nothing)
        return seen == [(scope, nothing, nothing)]

    assert asyncio.run(run())


def test_the_header_can_have_another_name(get):
    app = RequestId(respond(), header="X-Correlation-ID")
    response = get(app, headers={"X-Correlation-ID": "abc", "X-Request-ID": "no"})
    assert response.headers["x-correlation-id"] == response.text == "abc"


@pytest.mark.parametrize("header", ["", "a b", "a:", "a\n", "é"])
def test_a_header_that_cannot_be_one_is_refused(header):
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        RequestId(respond(), header=header)


def test_new_ids_pass_the_rule_and_differ_between_threads():
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_request_id() for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 400
    assert all(map(GENERATED, made))


def downstream(seen):
    return httpx.MockTransport(lambda request: seen.append(request) or httpx.Response(200))


def test_outgoing_calls_carry_it(get):
    seen = []

    async def app(scope, receive, send):
        hooks = {"request": [aforward_request_id]}
        async with httpx.AsyncClient(transport=downstream(seen), event_hooks=hooks) as client:
            await client.get("http://features/1")
            await client.get("http://features/2", headers={"X-Request-ID": "my own"})
        await respond()(scope, receive, send)

    get(RequestId(app), headers={"X-Request-ID": "abc"})
    assert [request.headers["x-request-id"] for request in seen] == ["abc", "my own"]


def test_outside_of_a_request_outgoing_calls_carry_none():
    seen = []
    hooks = {"request": [forward_request_id]}
    with httpx.Client(transport=downstream(seen), event_hooks=hooks) as client:
        client.get("http://features/1")
    assert "x-request-id" not in seen[0].headers
