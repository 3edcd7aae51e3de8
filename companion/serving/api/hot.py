"""The hot path: `POST /v2/predict`, from the first byte to the last, in one ASGI callable.

A framework's route costs more than the model: routing, dependency injection, two validations,
building request and response objects. None of that is needed where the whole request is one JSON
object and the whole answer another. So everything a request needs stands here in a row: key,
limit, size, time, decoding, scoring, encoding, counting. FastAPI still owns the route and documents
it (`companion.serving.api.routes`), and every refusal is worded by the pydantic model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from companion.serving.api.admission import (
    KEY_HEADER,
    Gate,
    Headers,
    Refusal,
    answer,
    retry_after,
)
from companion.serving.batching import BatcherClosedError, QueueFullError
from companion.serving.guards import ClientLeftError, Limits, RefusedRequestError, refuse
from companion.serving.metrics import ServiceMetrics
from companion.serving.problems import INVALID, MEDIA_TYPE, body_items, problem
from companion.serving.schemas import REFUSALS, TransactionIn, decode_transaction, encode_score
from companion.serving.scorer import Scorer
from companion.serving.tracing import current_request_id

PATH = "/v2/predict"
CLIENT_LEFT = 499
"""The status, for the metrics, of a request whose client did not wait (nginx's number for it)."""

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", MEDIA_TYPE.encode())
_JSON_TYPE = b"application/json"
_LOG = logging.getLogger(__name__)


class HotPredict:
    """Answers `POST /v2/predict`; any other method is 405."""

    def __init__(
        self,
        scorer: Scorer,
        gate: Gate,
        limits: Limits,
        metrics: ServiceMetrics,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._scorer = scorer
        self._gate = gate
        self._limits = limits
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = self._clock()
        status = 500
        try:
            status, headers, body = await self._answer(scope, receive)
            headers.append((b"server-timing", b"total;dur=%.3f" % ((self._clock() - begun) * 1e3)))
            await answer(send, status, headers, body)
        except RefusedRequestError as error:
            status = error.status
            await refuse(error, send)
        except ClientLeftError:
            status = CLIENT_LEFT
        finally:
            self._metrics.request(PATH, status, self._clock() - begun)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        if scope["method"] != "POST":
            body = problem(405, "Method Not Allowed")
            return 405, [_PROBLEM, (b"allow", b"POST")], body
        self._limits.check_headers(scope)
        headers = dict(scope["headers"])
        try:
            _, told = await self._gate.admit(scope, headers.get(KEY_HEADER))
        except Refusal as refusal:
            return refusal.status, refusal.headers, refusal.body
        if headers.get(b"content-type") != _JSON_TYPE and not _is_json(headers):
            detail = "The body is JSON, sent as application/json."
            return 415, [_PROBLEM, *told], problem(415, "Unsupported Media Type", detail)
        data = await self._limits.read(receive)
        try:
            transaction = decode_transaction(data)
        except REFUSALS:
            items = body_items(TransactionIn, data)
            return 422, [_PROBLEM, *told], problem(422, INVALID, errors=items)
        try:
            score = await self._scorer.score(transaction, current_request_id())
        except QueueFullError as error:
            wait = retry_after(error.retry_after)
            body = problem(503, "Service Unavailable", "Too many requests wait already.")
            return 503, [_PROBLEM, wait, *told], body
        except BatcherClosedError:
            body = problem(503, "Service Unavailable", "This process is about to stop.")
            return 503, [_PROBLEM, retry_after(1.0), *told], body
        except Exception:  # noqa: BLE001 - as a framework's outermost handler would
            _LOG.exception("a transaction could not be scored")
            detail = "This is our mistake; please quote the request id."
            return 500, [_PROBLEM, *told], problem(500, "Internal Server Error", detail)
        self._metrics.scored(score)
        return 200, [_JSON, *told], encode_score(score)


def _is_json(headers: dict[bytes, bytes]) -> bool:
    kind = headers.get(b"content-type", b"").partition(b";")[0]
    return kind.strip().lower() == _JSON_TYPE
