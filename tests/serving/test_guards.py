"""A request that asks for too much is refused at the first byte, or second, too many."""

import asyncio
import json

import pytest

from companion.serving.guards import (
    BodyTooLargeError,
    ClientLeftError,
    Guard,
    HeadersTooLargeError,
    Limits,
    RefusedRequestError,
    SlowBodyError,
)

SCOPE = {"type": "http", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}


def feeding(*bodies, ends=True):
    """A `receive` that gives `bodies` and then, unless it `ends`, nothing for ever."""
    left = list(bodies)

    async def receive():
        if not left:
            if ends:
                return {"type": "http.disconnect"}
            await asyncio.get_running_loop().create_future()
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left) or not ends}

    return receive


def answered(app, receive, scope=SCOPE):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


# ----- reading a body at once -------------------------------------------------------------------


def test_a_body_that_is_there_is_given_as_it_is():
    assert asyncio.run(Limits().read(feeding(b"abc"))) == b"abc"


def test_a_body_in_pieces_is_put_together():
    assert asyncio.run(Limits().read(feeding(b"a", b"", b"bc"))) == b"abc"


@pytest.mark.parametrize("pieces", [[b"12345"], [b"123", b"45"], [b"1", b"2", b"345"]])
def test_a_body_of_one_byte_too_many_is_refused(pieces):
    with pytest.raises(BodyTooLargeError) as caught:
        asyncio.run(Limits(body=4).read(feeding(*pieces)))

    assert caught.value.limit == 4


def test_a_body_of_exactly_the_limit_is_taken():
    assert asyncio.run(Limits(body=4).read(feeding(b"12", b"34"))) == b"1234"


@pytest.mark.parametrize("pieces", [[], [b"12"]])
def test_a_body_that_does_not_come_is_refused(pieces):
    with pytest.raises(SlowBodyError) as caught:
        asyncio.run(Limits(seconds=0.01).read(feeding(*pieces, ends=False)))

    assert caught.value.seconds == 0.01


def test_a_client_that_leaves_in_between_is_told_apart():
    async def receive():
        return messages.pop(0)

    messages = [{"type": "http.request", "body": b"a", "more_body": True}]
    messages.append({"type": "http.disconnect"})
    with pytest.raises(ClientLeftError):
        asyncio.run(Limits().read(receive))


def test_a_body_that_comes_later_is_waited_for():
    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"abc"}

    assert asyncio.run(Limits().read(receive)) == b"abc"


# ----- headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "much",
    [
        {"headers": [(b"a", b"b" * 100)]},
        {"headers": [(b"a" * 100, b"b")]},
        {"headers": [(b"a", b"b" * 9)] * 10},
        {"query_string": b"q" * 100},
        {"raw_path": b"p" * 100},
    ],
)
def test_headers_that_are_too_large_in_sum_are_refused(much):
    with pytest.raises(HeadersTooLargeError):
        Limits(headers=99).check_headers({**SCOPE, **much})


def test_a_promise_of_too_much_is_enough_to_be_refused():
    with pytest.raises(BodyTooLargeError):
        Limits(body=9).check_headers({**SCOPE, "headers": [(b"content-length", b"10")]})


@pytest.mark.parametrize("value", [b"9", b"x", b"", b"-1"])
def test_what_is_no_promise_of_too_much_is_left_to_the_body(value):
    Limits(body=9).check_headers({**SCOPE, "headers": [(b"content-length", value)]})


@pytest.mark.parametrize("wrong", [{"body": 0}, {"headers": 0}, {"seconds": 0.0}])
def test_limits_that_let_nothing_through_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)


# ----- as middleware ----------------------------------------------------------------------------


async def reads_all(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


async def swallows(scope, receive, send):
    """As a framework does: whatever happens while it reads the body is the client's 400."""
    status = 200
    try:
        await receive()
    except RefusedRequestError:
        status = 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("app", [reads_all, swallows])
@pytest.mark.parametrize(("pieces", "ends", "status"), [([b"12345"], True, 413), ([], False, 408)])
def test_whatever_the_application_makes_of_it_the_answer_is_the_guards(app, pieces, ends, status):
    receive = feeding(*pieces, ends=ends)
    sent = answered(Guard(app, Limits(body=4, seconds=0.01)), receive)

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["status"] == status


def test_what_is_within_the_limits_passes():
    sent = answered(Guard(reads_all, Limits(body=4)), feeding(b"12", b"34"))

    assert (sent[0]["status"], sent[1]["body"]) == (200, b"4")


def test_headers_are_looked_at_before_the_application_is_asked():
    async def never(scope, receive, send):
        raise AssertionError

    sent = answered(
        Guard(never, Limits(headers=10)), feeding(), {**SCOPE, "headers": [(b"a", b"b" * 20)]}
    )

    assert sent[0]["status"] == 431


def test_some_paths_may_bring_more():
    guard = Guard(reads_all, Limits(body=1), larger={"/files": Limits(body=100)})

    assert answered(guard, feeding(b"12"), {**SCOPE, "path": "/files/1"})[0]["status"] == 200
    assert answered(guard, feeding(b"12"), {**SCOPE, "path": "/other"})[0]["status"] == 413


def test_an_answer_that_has_begun_is_not_followed_by_another():
    async def begins_first(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()

    sent = answered(Guard(begins_first, Limits(body=4)), feeding(b"12345"))

    assert [message["status"] for message in sent if "status" in message] == [200]


def test_a_refusal_that_is_not_the_guards_own_is_not_its_to_answer():
    async def refuses(scope, receive, send):
        raise BodyTooLargeError(1)

    with pytest.raises(BodyTooLargeError):
        answered(Guard(refuses, Limits()), feeding())


def test_waiting_for_the_client_to_leave_may_take_as_long_as_it_takes():
    async def waits(scope, receive, send):
        await receive()
        return await receive()

    assert answered(Guard(waits, Limits(seconds=0.01)), feeding(b"a")) == []


def test_what_is_not_http_passes():
    async def lifespan(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})

    assert answered(Guard(lifespan, Limits()), feeding(), {"type": "lifespan"})
