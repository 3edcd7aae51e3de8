"""Errors that a program can read and a person can quote: problem details by RFC 9457.

Every error has the same shape, whoever notices it (a route, the framework, a middleware, nobody),
and names the request, so that whoever reports it can be helped. It says what was wrong and never
repeats what was sent: a body may hold what must not be in a log, and may be no JSON at all (NaN
echoed back was a 500). It never holds a stack trace either: that goes to the log, under the id.

`problem` makes the body's bytes for those who answer by hand, `problem_response` a response,
`install` teaches an application to answer all its errors so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
INVALID = "The request does not fit its schema"

_LOG = logging.getLogger(__name__)
_LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_.-]{{0,{_LONGEST_NAME - 1}}}")
_MOST_ITEMS = 50
_encode = msgspec.json.Encoder().encode


def problem(
    status: int,
    title: str,
    detail: str | None = None,
    *,
    request_id: str | None = None,
    **extensions: Any,
) -> bytes:
    """The JSON of a problem: `type`, `title`, `status`, `detail`, `request_id`, `extensions`.

    Without `request_id` it is that of the request being answered, "" outside of one.
    """
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if detail is not None:
        body["detail"] = detail
    body["request_id"] = _current_request_id() if request_id is None else request_id
    return _encode(body | extensions)


def problem_response(
    status: int,
    title: str,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **extensions: Any,
) -> Response:
    """`problem` as a response; `extensions` are further members of its body."""
    return Response(
        problem(status, title, detail, **extensions),
        status_code=status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def error_items(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pydantic's errors as `type`, `loc` and `msg`, without the input; the first fifty.

    The name of an unknown field is the caller's text too: shown if it looks like a name, else "?".
    """
    return [
        {
            "type": error["type"],
            "loc": [_shown(part) for part in error["loc"]],
            "msg": error["msg"],
        }
        for error, _ in zip(errors, range(_MOST_ITEMS), strict=False)
    ]


def body_items(model: type[BaseModel], body: bytes) -> list[dict[str, Any]]:
    """Why `model` refuses the JSON `body`, worded as FastAPI words it: places begin at "body".

    For a body that another decoder refused already. Where `model` would take it, which happens
    when a field stands there twice and only one of the two is wrong, that is what is said.
    """
    try:
        model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return error_items([{**item, "loc": ("body", *item["loc"])} for item in found])
    return [{"type": "json_invalid", "loc": ["body"], "msg": "A field stands there twice"}]


def install(app: FastAPI) -> None:
    """Let `app` answer refused input, `HTTPException` and whatever nobody caught as problems.

    To be called before the first request: handlers are read once, when the application starts.
    """
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unhandled)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(422, INVALID, errors=error_items(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400 and isinstance(error.__cause__, ValueError | RecursionError):
        # FastAPI tells broken JSON from JSON that Python cannot read: no UTF-8, too deep, a number
        # of a million digits. To whoever sent it they are one.
        item = {"type": "json_invalid", "loc": ["body"], "msg": "The body cannot be read as JSON"}
        return problem_response(422, INVALID, errors=[item])
    title = _phrase(error.status_code)
    detail = error.detail if isinstance(error.detail, str) and error.detail != title else None
    return problem_response(error.status_code, title, detail, headers=error.headers)


async def _unhandled(request: Request, error: Exception) -> Response:
    _LOG.error(
        "unhandled %s in %s", type(error).__name__, request.scope.get("path"), exc_info=error
    )
    return problem_response(500, _phrase(500), "This is our mistake; please quote the request id.")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _shown(part: Any) -> str | int:
    if isinstance(part, int):
        return part
    text = str(part)
    return text if _NAME.fullmatch(text) else "?"


def documented(model: type[BaseModel], statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses=` says about problems: `model` under each status."""
    # A $ref by hand: FastAPI would file a `model=` under application/json.
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        status: {"description": _phrase(status), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def _current_request_id() -> str:
    from companion.serving.tracing import current_request_id

    return current_request_id() or ""
